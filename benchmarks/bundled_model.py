# SPDX-License-Identifier: Apache-2.0
"""Measure how long one picture of bundled://shapes takes alone on this machine, with the stock diffusers pipeline.

    .venv/bin/python benchmarks/bundled_model.py [--repeat N]

The script prints one JSON line per picture size: median and 90th percentile in seconds at 15 steps with guidance, and the
medians of its parts. Run it on an idle machine: the model is so small that any other work changes the figures.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from sd_runtime.config import ModelConfig, RuntimeConfig
from sd_runtime.engine.loader import load

STEPS, GUIDANCE = 15, 4.0


def seconds(act: Callable[[], Any], repeat: int) -> list[float]:
    """Return the sorted times of an action, after three warm-up runs."""
    found = []
    with torch.no_grad():
        for number in range(repeat + 3):
            began = time.monotonic()
            act()
            if number >= 3:  # noqa: PLR2004
                found.append(time.monotonic() - began)
    return sorted(found)


def measure(pipeline: Any, side: int, repeat: int) -> dict[str, float]:
    """Measure the seconds of a whole picture and of its parts."""
    latents = torch.randn(1, pipeline.unet.config.in_channels, side // 8, side // 8)
    pair = latents.repeat(2, 1, 1, 1)
    text = torch.randn(2, 77, pipeline.unet.config.cross_attention_dim)
    parts: dict[str, Callable[[], Any]] = {
        "text": lambda: pipeline.encode_prompt("a red circle", "cpu", 1, True),
        "unet step": lambda: pipeline.unet(pair, torch.tensor(500), text),
        "decode": lambda: pipeline.vae.decode(latents),
    }
    whole = seconds(
        lambda: pipeline(
            "a red circle", width=side, height=side, num_inference_steps=STEPS, guidance_scale=GUIDANCE
        ),
        repeat,
    )
    figures = {name: statistics.median(seconds(act, repeat)) for name, act in parts.items()}
    return {"p50": statistics.median(whole), "p90": whole[int(0.9 * len(whole))], **figures}


def main() -> None:
    """Print one line about the machine and one per picture size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=30, help="pictures per size")
    repeat = parser.parse_args().repeat
    pipeline = load(RuntimeConfig(model=ModelConfig(uri="bundled://shapes"))).pipeline
    torch.set_num_threads(os.cpu_count() or 1)  # loading leaves one
    print(json.dumps({"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}))
    for side in (64, 128, 256):
        figures = {name: round(value, 4) for name, value in measure(pipeline, side, repeat).items()}
        print(json.dumps({"side": side, "steps": STEPS, "guidance": GUIDANCE, **figures}), flush=True)


if __name__ == "__main__":
    main()
