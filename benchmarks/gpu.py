# SPDX-License-Identifier: Apache-2.0
"""Pictures per second on a GPU: the published pattern's way, stock diffusers at its best, and the engine, in one run.

    .venv/bin/python benchmarks/gpu.py [--cases sd21-512 ...] [--batches 1 2 4 8 16] [--output FOLDER]

Full-size networks with random weights: speed does not depend on their values, and nothing is downloaded. Sides:
`pattern`, float32 and one picture after another, as the published AWS example draws; `stock`, bfloat16, channels
last and torch.compile, one call per batch; `engine`, as many clients as the batch size, each asking again as soon as
it is answered. `share of peak` counts the UNet's work only, against the card's dense bfloat16 peak. Writes gpu.json
and gpu.md. `--tiny` runs small networks on any device, to try the script itself.
"""

import argparse
import asyncio
import gc
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sd_runtime.config import Batching, LiveConfig, ModelConfig, Optimizations, RuntimeConfig, WarmupShape
from sd_runtime.diffusion import DiffusionEngine, load
from sd_runtime.engine import ImageRequest, Picture

PROMPT, STEPS, GUIDANCE = "a red circle", 20, 7.5
LEAST_SECONDS = 8.0
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
"""Dense bfloat16 TFLOP/s, from the makers' data sheets."""


@dataclass(frozen=True)
class Case:
    """A model at a size; TFLOP of one guided denoising step of one picture, attention included."""

    xl: bool
    side: int
    tflop: float
    steps: int = STEPS


CASES = {
    "sd21-512": Case(xl=False, side=512, tflop=1.609),
    "sd21-768": Case(xl=False, side=768, tflop=4.298),
    "sdxl-1024": Case(xl=True, side=1024, tflop=13.522),
}


def text_config(width: int, layers: int, heads: int, projection: int, *, tiny: bool) -> CLIPTextConfig:
    """A CLIP text encoder's configuration."""
    if tiny:
        width, layers, heads, projection = 32, 2, 2, 32
    return CLIPTextConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        projection_dim=projection,
    )


def vae(*, tiny: bool) -> AutoencoderKL:
    """Stable Diffusion's VAE."""
    channels = (4, 4, 4, 4) if tiny else (128, 256, 512, 512)
    return AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=2,
        norm_num_groups=2 if tiny else 32,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def sd21(*, tiny: bool) -> StableDiffusionPipeline:
    """Stable Diffusion 2.1: 866 million parameters in the UNet."""
    unet = UNet2DConditionModel(
        sample_size=96,
        block_out_channels=(8, 8, 16, 16) if tiny else (320, 640, 1280, 1280),
        norm_num_groups=4 if tiny else 32,
        attention_head_dim=2 if tiny else (5, 10, 20, 20),
        cross_attention_dim=32 if tiny else 1024,
        use_linear_projection=True,
    )
    return StableDiffusionPipeline(
        vae=vae(tiny=tiny),
        text_encoder=CLIPTextModel(text_config(1024, 23, 16, 512, tiny=tiny)),
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            prediction_type="v_prediction", beta_schedule="scaled_linear", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(*, tiny: bool) -> StableDiffusionXLPipeline:
    """SDXL: 2.6 billion parameters in the UNet."""
    projection = 32 if tiny else 1280
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(8, 16, 16) if tiny else (320, 640, 1280),
        norm_num_groups=4 if tiny else 32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1 if tiny else (1, 2, 10),
        attention_head_dim=2 if tiny else (5, 10, 20),
        cross_attention_dim=64 if tiny else 2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8 if tiny else 256,
        projection_class_embeddings_input_dim=6 * 8 + projection if tiny else 2816,
    )
    return StableDiffusionXLPipeline(
        vae=vae(tiny=tiny),
        text_encoder=CLIPTextModel(text_config(768, 12, 12, 768, tiny=tiny)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(1280, 32, 20, projection, tiny=tiny)),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
        add_watermarker=False,
    )


def tokenizer() -> CLIPTokenizer:
    """The bundled model's: any will do."""
    return CLIPTokenizer.from_pretrained(Path(str(files("sd_runtime"))) / "models/shapes/tokenizer")


def rate(draw: Callable[[], None], pictures: int, least_seconds: float) -> float:
    """Pictures per second of a call that draws so many, after two that warm up."""
    draw(), draw()
    began, calls = time.monotonic(), 0
    while time.monotonic() - began < least_seconds:
        draw()
        calls += 1
    return pictures * calls / (time.monotonic() - began)


def pattern(folder: Path, case: Case, device: str, least_seconds: float) -> float:
    """The published example: float32, the library's defaults but for the steps."""
    pipeline = loaded(folder, torch.float32, device)
    return rate(lambda: call(pipeline, case, 1), 1, least_seconds)


def stock(
    folder: Path, case: Case, device: str, batches: list[int], least_seconds: float
) -> dict[int, float]:
    """The documented fast recipe of diffusers."""
    pipeline = loaded(folder, torch.bfloat16 if device == "cuda" else torch.float32, device)
    if device == "cuda":
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
        pipeline.unet = torch.compile(pipeline.unet, mode="max-autotune", fullgraph=True)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode, mode="max-autotune", fullgraph=True)
    return {
        batch: rate(lambda batch=batch: call(pipeline, case, batch), batch, least_seconds)
        for batch in batches
    }


def call(pipeline: Any, case: Case, batch: int) -> None:
    """One call of a stock pipeline."""
    generators = [torch.Generator().manual_seed(index) for index in range(batch)]
    pipeline(
        [PROMPT] * batch,
        width=case.side,
        height=case.side,
        num_inference_steps=case.steps,
        guidance_scale=GUIDANCE,
        generator=generators,
    )


def loaded(folder: Path, dtype: torch.dtype, device: str) -> Any:
    """A stock pipeline of a folder."""
    kind = StableDiffusionXLPipeline if (folder / "text_encoder_2").exists() else StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def engine(
    folder: Path, case: Case, device: str, batches: list[int], least_seconds: float
) -> dict[int, float]:
    """The engine under closed-loop load, with every switch that is on by measurement."""
    fast = device == "cuda"
    config = RuntimeConfig(
        model=ModelConfig(uri=f"file://{folder}", dtype="bfloat16"),
        optimizations=Optimizations(channels_last=True, fuse_qkv=fast, compile=fast, cuda_graphs=fast),
        warmup=(WarmupShape(width=case.side, height=case.side),),
    )
    live = LiveConfig(batching=Batching(max_batch_size=max(batches)))
    running = DiffusionEngine(load(config), live)
    try:
        return {batch: asyncio.run(parallel(running, case, batch, least_seconds)) for batch in batches}
    finally:
        running.close()


async def parallel(running: DiffusionEngine, case: Case, clients: int, least_seconds: float) -> float:
    """Pictures per second of so many clients."""
    drawn: list[Picture] = []
    seeds = count()

    async def client(until: float) -> None:
        while time.monotonic() < until:
            request = ImageRequest(PROMPT, "", case.side, case.side, case.steps, GUIDANCE, seed=next(seeds))
            async with aclosing(running.generate(request)) as updates:
                drawn.extend([update async for update in updates if isinstance(update, Picture)])

    for seconds in (0.0, least_seconds):  # the first round warms up: a picture for each client
        drawn.clear()
        began = time.monotonic()
        await asyncio.gather(*(client(began + seconds + 1e-3) for _ in range(clients)))
    return len(drawn) / (time.monotonic() - began)


def measure(
    case: Case, batches: list[int], device: str, *, tiny: bool, least_seconds: float
) -> dict[str, Any]:
    """All sides of one case; each frees the card before the next."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        whole = (sdxl if case.xl else sd21)(tiny=tiny)
        whole.to(dtype=torch.bfloat16).save_pretrained(folder)
        del whole
        found: dict[str, Any] = {"pattern": pattern(folder, case, device, least_seconds)}
        for side in (stock, engine):
            gc.collect()
            torch.cuda.empty_cache()
            found[side.__name__] = side(folder, case, device, batches, least_seconds)
    return found


def table(cases: dict[str, Any], peak: float | None) -> str:
    """Markdown: a row per case and batch."""
    lines = [
        "| case | batch | pattern | stock | engine | engine / pattern | engine / stock | share of peak |"
    ]
    lines.append("|---" * 8 + "|")
    for name, found in cases.items():
        for batch, stock_rate in found["stock"].items():
            rate = found["engine"][batch]
            share = f"{rate * STEPS * CASES[name].tflop / peak:.1%}" if peak else ""
            ratios = f"{rate / found['pattern']:.1f} | {rate / stock_rate:.2f}"
            lines.append(
                f"| {name} | {batch} | {found['pattern']:.2f} | {stock_rate:.2f} | {rate:.2f} | {ratios} | {share} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["sd21-512", "sd21-768"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--output", type=Path, default=Path(".cache/benchmarks"))
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the script")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not asked.tiny:
        parser.error("there is no GPU here; --tiny tries the script on a CPU")
    card = torch.cuda.get_device_name() if device == "cuda" else "none"
    peak = next((value for name, value in PEAKS.items() if name in card.replace("-", " ").split()), None)
    seconds = 0.5 if asked.tiny else LEAST_SECONDS
    cases = {}
    for name in asked.cases:
        case = replace(CASES[name], side=64, steps=2) if asked.tiny else CASES[name]
        cases[name] = measure(case, asked.batches, device, tiny=asked.tiny, least_seconds=seconds)
        print(json.dumps({name: cases[name]}), flush=True)
    asked.output.mkdir(parents=True, exist_ok=True)
    about = {"card": card, "torch": torch.__version__, "steps": STEPS}
    (asked.output / "gpu.json").write_text(json.dumps({**about, "cases": cases}, indent=2) + "\n")
    (asked.output / "gpu.md").write_text(table(cases, peak))
    print(table(cases, peak))


if __name__ == "__main__":
    main()
