# SPDX-License-Identifier: Apache-2.0
"""Measure pictures per second on a GPU: the published pattern, stock diffusers at its best, and the engine, in one run.

    make gpu                                   # the tests of the GPU's path, then this, within eight minutes
    .venv/bin/python benchmarks/gpu.py [--cases sd21-512 ...] [--batches 1 8] [--seconds 480] [--output FOLDER]

The networks have full size and random weights: the speed does not depend on their values, and nothing is downloaded. The
sides are:

- `pattern`: float32 and one picture after another, as in the published AWS example;
- `stock`: bfloat16, channels last and torch.compile, one call per batch;
- `engine`: the same mode of torch.compile, with as many clients as the batch size. Each client sends its next request as
  soon as it has its answer;
- `fp8`: the engine with `model.quantization: fp8`.

The script prints each figure as soon as it is measured. `share of peak` counts only the UNet's work, against the card's
dense bfloat16 peak. A side that would start after `--seconds` is left out, and the script prints its name. The script
writes gpu.json and gpu.md. `--tiny` runs small networks on any device, to try the script itself.
"""

import argparse
import asyncio
import gc
import json
import math
import tempfile
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from full_size_networks import sd21, sdxl

from sd_runtime.config import (
    Batching,
    LiveConfig,
    ModelConfig,
    Optimizations,
    Quantization,
    RuntimeConfig,
    WarmupShape,
)
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.execution import warmup
from sd_runtime.engine.interface import ImageRequest, Picture
from sd_runtime.engine.loader import load
from sd_runtime.errors import ConfigError

PROMPT, STEPS, GUIDANCE = "a red circle", 20, 7.5
LEAST_SECONDS = 8.0

PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
"""Dense bfloat16 TFLOP/s, from the makers' data sheets."""


@dataclass(frozen=True)
class Case:
    """A model at a size, with the TFLOP of one guided denoising step of one picture, attention included."""

    xl: bool
    side: int
    tflop: float
    steps: int = STEPS


CASES = {
    "sd21-512": Case(xl=False, side=512, tflop=1.609),
    "sd21-768": Case(xl=False, side=768, tflop=4.298),
    "sdxl-1024": Case(xl=True, side=1024, tflop=13.522),
}


@dataclass(frozen=True)
class Bench:
    """The work of a side, and the receiver of its figures.

    Attributes:
        folder: the folder of the networks.
        say: takes a batch size and its pictures per second.
    """

    folder: Path
    case: Case
    device: str
    batches: list[int]
    least_seconds: float
    say: Callable[[int, float], None]


def rate(draw: Callable[[], None], pictures: int, least_seconds: float) -> float:
    """Return the pictures per second of a call that generates `pictures` of them, after two warm-up calls."""
    draw()
    draw()
    began, calls = time.monotonic(), 0
    while time.monotonic() - began < least_seconds:
        draw()
        calls += 1
    return pictures * calls / (time.monotonic() - began)


def pattern(bench: Bench) -> None:
    """Measure the published example: float32, the library's defaults except for the steps, one picture at a time."""
    pipeline = loaded(bench, torch.float32)
    bench.say(1, rate(partial(call, pipeline, bench.case, 1), 1, bench.least_seconds))


def stock(bench: Bench) -> None:
    """Measure the documented fast recipe of diffusers, in the compiler mode that the engine uses."""
    fast = bench.device == "cuda"
    pipeline = loaded(bench, torch.bfloat16 if fast else torch.float32)
    if fast:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
        pipeline.unet = torch.compile(pipeline.unet, dynamic=False)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode, dynamic=False)
    for batch in bench.batches:
        bench.say(batch, rate(partial(call, pipeline, bench.case, batch), batch, bench.least_seconds))


def call(pipeline: Any, case: Case, batch: int) -> None:
    """Call a stock pipeline once."""
    generators = [torch.Generator().manual_seed(index) for index in range(batch)]
    pipeline(
        [PROMPT] * batch,
        width=case.side,
        height=case.side,
        num_inference_steps=case.steps,
        guidance_scale=GUIDANCE,
        generator=generators,
    )


def loaded(bench: Bench, dtype: torch.dtype) -> Any:
    """Load a stock pipeline of the networks."""
    folder = bench.folder
    kind = StableDiffusionXLPipeline if (folder / "text_encoder_2").exists() else StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(bench.device)


def fp8(bench: Bench) -> None:
    """Measure the engine with linear layers in float8."""
    engine(bench, "fp8")


def engine(bench: Bench, quantization: Quantization | None = None) -> None:
    """Measure the engine under closed-loop load; its warm-up runs only these batch sizes."""
    fast, case = bench.device == "cuda", bench.case
    config = RuntimeConfig(
        model=ModelConfig(uri=f"file://{bench.folder}", dtype="bfloat16", quantization=quantization),
        optimizations=Optimizations(fuse_qkv=fast, compile=fast),
        warmup=(WarmupShape(width=case.side, height=case.side),),
    )
    live = LiveConfig(batching=Batching(max_batch_size=max(bench.batches)))
    with mock.patch.object(warmup, "_batches", return_value=tuple(bench.batches)):
        running = DiffusionEngine(load(config), live)
    try:
        for batch in bench.batches:
            bench.say(batch, asyncio.run(parallel(running, case, batch, bench.least_seconds)))
    finally:
        running.close()


async def parallel(running: DiffusionEngine, case: Case, clients: int, least_seconds: float) -> float:
    """Return the pictures per second of a number of clients."""
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


class Report:
    """The figures so far.

    Args:
        peak: the TFLOP/s of the card, if they are known.
        until: the time after which no side starts, in monotonic seconds.
    """

    def __init__(self, peak: float | None, until: float) -> None:
        self._peak = peak
        self._until = until
        self.found: dict[str, dict[str, dict[int, float]]] = {}
        self.left_out: list[str] = []

    def has_time(self, case: str, side: str, seconds: float = 0.0) -> bool:
        """Whether there is time to start a side that takes `seconds`; if not, the side is recorded as left out."""
        if time.monotonic() + seconds < self._until:
            return True
        self.leave_out(case, side, "the time is over")
        return False

    def leave_out(self, case: str, side: str, reason: str) -> None:
        """Record and print a side without figures."""
        self.left_out.append(f"{case} {side}")
        print(f"{case} {side}: left out: {reason}", flush=True)

    def put(self, case: str, side: str, batch: int, pictures: float) -> None:
        """Print and record a figure."""
        self.found.setdefault(case, {}).setdefault(side, {})[batch] = pictures
        share = f", {self.share(case, pictures):.1%} of the card's peak" if self._peak else ""
        print(f"{case} {side} batch {batch}: {pictures:.2f} pictures/s{share}", flush=True)

    def share(self, case: str, pictures: float) -> float:
        """Return the share of the card's dense bfloat16 peak."""
        return pictures * CASES[case].steps * CASES[case].tflop / (self._peak or math.nan)

    def table(self) -> str:
        """Return a Markdown table with a row for each case and batch."""
        lines = [
            "| case | batch | pattern | stock | engine | fp8 | engine / pattern | engine / stock | share of peak |"
        ]
        lines.append("|---" * 9 + "|")
        for case, sides in self.found.items():
            drawn = sides.get("engine", {})
            batches = sorted({*sides.get("stock", {}), *drawn, *sides.get("fp8", {})})
            lines += [self._row(case, batch, sides, drawn.get(batch, math.nan)) for batch in batches]
        return "\n".join(lines) + "\n"

    def _row(self, case: str, batch: int, sides: dict[str, dict[int, float]], engine: float) -> str:
        published = sides.get("pattern", {}).get(1, math.nan)
        stock = sides.get("stock", {}).get(batch, math.nan)
        share = f"{self.share(case, engine):.1%}" if self._peak else ""
        quantized = sides.get("fp8", {}).get(batch, math.nan)
        ratios = f"{engine / published:.1f} | {engine / stock:.2f}"
        return f"| {case} | {batch} | {published:.2f} | {stock:.2f} | {engine:.2f} | {quantized:.2f} | {ratios} | {share} |"


def measure(name: str, case: Case, asked: argparse.Namespace, device: str, report: Report) -> None:
    """Measure all sides of one case; each side frees the card before the next one starts."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        torch.manual_seed(0)
        whole = (sdxl if case.xl else sd21)(tiny=asked.tiny)
        whole.to(dtype=torch.bfloat16).save_pretrained(folder)
        del whole
        took: dict[str, float] = {}
        for side in (engine, stock, pattern, fp8):
            began = time.monotonic()
            # The fp8 side compiles as long as the engine did, and must end within the time.
            if report.has_time(name, side.__name__, took.get("engine", 0.0) if side is fp8 else 0.0):
                say = partial(report.put, name, side.__name__)
                seconds = 0.5 if asked.tiny else LEAST_SECONDS
                try:
                    side(Bench(folder, case, device, asked.batches, seconds, say))
                except ConfigError as error:  # no float8 here
                    report.leave_out(name, side.__name__, str(error))
            took[side.__name__] = time.monotonic() - began
            gc.collect()
            torch.cuda.empty_cache()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["sd21-768"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--seconds", type=float, default=480.0, help="after so many no side begins")
    parser.add_argument("--output", type=Path, default=Path(".cache/benchmarks"))
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the script")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not asked.tiny:
        parser.error("there is no GPU here; --tiny tries the script on a CPU")
    card = torch.cuda.get_device_name() if device == "cuda" else "none"
    peak = next((value for name, value in PEAKS.items() if name in card.replace("-", " ").split()), None)
    report = Report(peak, time.monotonic() + asked.seconds)
    for name in asked.cases:
        case = replace(CASES[name], side=64, steps=2) if asked.tiny else CASES[name]
        measure(name, case, asked, device, report)
    asked.output.mkdir(parents=True, exist_ok=True)
    about = {"card": card, "torch": torch.__version__, "steps": STEPS, "left out": report.left_out}
    (asked.output / "gpu.json").write_text(json.dumps({**about, "cases": report.found}, indent=2) + "\n")
    (asked.output / "gpu.md").write_text(report.table())
    print(report.table())


if __name__ == "__main__":
    main()
