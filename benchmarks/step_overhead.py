# SPDX-License-Identifier: Apache-2.0
"""Measure the cost of a denoising step beside the UNet: single and batched updates, and the host time of a tick.

    .venv/bin/python benchmarks/step_overhead.py [--images N] [--repeat N]

The UNet is replaced by a function that returns its input. For each scheduler and two sizes of latents, the script prints
the milliseconds of one step of all images with guidance:

- `one by one`: with diffusers' scheduler objects, which generate noise in each step;
- `batched`: as in the engine, and the ratio to Euler's time;
- `noise`: the generation of noise for all images, which is not part of `batched`;
- `plan`: the computation of the coefficients of all steps, once for each schedule.

Then the script prints the time of a tick of the bundled model's denoiser, and the time between two UNet calls of a
running engine, whose other threads compete for Python's lock. Figures are medians; run it on an idle machine.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import diffusers
import torch

from sd_runtime.config import LiveConfig, ModelConfig, RuntimeConfig
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.execution.runners import preparation, runner
from sd_runtime.engine.image_task import tasks
from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.loader import load
from sd_runtime.engine.model import LoadedModel
from sd_runtime.engine.sampling import schedulers, step_plan
from sd_runtime.engine.sampling.denoise_state import begin
from sd_runtime.engine.sampling.unet_batch import UNetBatch
from sd_runtime.observability.observer import Silent

CELL, GUIDANCE = 8, 4.0
LATENTS = {"12x8x8": (12, 64), "4x64x64": (4, 512)}
"""Channels, and the sides of the image in pixels: `bundled://shapes`, and Stable Diffusion."""


def milliseconds(act: Callable[[], Any]) -> float:
    """One time of an action."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def one_by_one(own: Any, name: Any, images: int, shape: tuple[int, ...], steps: int) -> list[float]:
    """Times of the steps, each image with a scheduler of its own."""
    made = [schedulers.fresh(own, name, steps) for _ in range(images)]
    prediction = torch.randn(2 * images, *shape[1:])
    latents = [torch.randn(shape) * each.init_noise_sigma for each in made]

    def step(index: int) -> None:
        rows = []
        for scheduler, each in zip(made, latents, strict=True):
            rows.append(scheduler.scale_model_input(each, scheduler.timesteps[index]).expand(2, -1, -1, -1))
        torch.cat(rows)
        for place, (scheduler, share) in enumerate(zip(made, prediction.split(2), strict=True)):
            avoid, follow = share.chunk(2)
            guided = avoid + GUIDANCE * (follow - avoid)
            timestep = scheduler.timesteps[index]
            latents[place] = scheduler.step(guided, timestep, latents[place], return_dict=False)[0]

    return [milliseconds(lambda: step(index)) for index in range(len(made[0].timesteps))]  # noqa: B023


def batched(
    own: Any, name: Any, images: int, shape: tuple[int, ...], steps: int
) -> tuple[list[float], list[float]]:
    """Times of the steps, all images in one update, and of drawing the noise for them."""
    conditions = [{"encoder_hidden_states": torch.randn(2, 77, 64)} for _ in range(images)]
    request = ImageRequest("", "", shape[2] * CELL, shape[2] * CELL, steps, GUIDANCE, scheduler=name)
    begun = [
        begin(own, request, seed=seed, conditions=each, channels=shape[1], cell=CELL)
        for seed, each in enumerate(conditions)
    ]
    prediction = torch.randn(2 * images, *shape[1:])
    predict = UNetBatch(lambda *_: prediction)

    def draw() -> None:
        for image in begun:
            image.noise.current()

    def step() -> None:
        for image, advance in zip(begun, predict(begun), strict=True):
            image.advance(advance)

    drawn, stepped = zip(
        *((milliseconds(draw), milliseconds(step)) for _ in range(begun[0].plan.steps)), strict=True
    )
    return list(stepped), list(drawn)


def updates(images: int, steps: int) -> None:
    """Print one line for each scheduler and size."""
    config = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
    }
    own = diffusers.EulerDiscreteScheduler.from_config(config)
    for size, (channels, side) in LATENTS.items():
        shape = (1, channels, side // CELL, side // CELL)
        euler = 0.0
        for name in schedulers.SCHEDULERS:
            with torch.inference_mode():
                plan = milliseconds(partial(step_plan.plan_of, schedulers.fresh(own, name, steps)))
                apart = statistics.median(one_by_one(own, name, images, shape, steps))
                joined, noise = map(statistics.median, batched(own, name, images, shape, steps))
            euler = euler or joined
            figures = {"one by one ms": apart, "batched ms": joined, "of Euler's": joined / euler}
            figures |= {"noise ms": noise, "plan ms": plan}
            rounded = {each: round(value, 3) for each, value in figures.items()}
            print(json.dumps({"latents": size, "scheduler": name, **rounded}), flush=True)


def request_of(images: int, steps: int) -> ImageRequest:
    """Guided images of the bundled model."""
    return ImageRequest("a red circle", "", 64, 64, steps, GUIDANCE, count=images, scheduler="Euler")


def returned(samples: torch.Tensor, *_: Any) -> torch.Tensor:
    """In place of the UNet."""
    return samples


def ticks(model: LoadedModel, images: int, steps: int) -> list[float]:
    """Times of a denoiser's ticks."""
    room = runner(with_call(model, returned), Silent())
    room.budget.pictures = images
    begun = tasks(request_of(images, steps), model.family)
    if failed := preparation(model, Silent())(begun):
        raise failed[0][1]
    for task in begun:
        room.join(task)
    room.tick()  # in which the images begin
    return [milliseconds(room.tick) for _ in range(steps - 1)]


def between_calls(model: LoadedModel, images: int, steps: int) -> list[float]:
    """Times from the end of a call to the begin of the next one, in a running engine."""
    moments: list[tuple[float, float]] = []

    def watched(samples: torch.Tensor, *_: Any) -> torch.Tensor:
        now = time.perf_counter()
        moments.append((now, time.perf_counter()))
        return samples

    async def run() -> None:
        running = DiffusionEngine(with_call(model, watched), LiveConfig())
        try:
            async with aclosing(running.generate(request_of(images, steps))) as found:
                async for _ in found:
                    pass
        finally:
            running.close()

    asyncio.run(run())
    return [(begun - ended) * 1000 for (_, ended), (begun, _) in itertools.pairwise(moments)]


def with_call(model: LoadedModel, call: Any) -> LoadedModel:
    """The model with another function in place of its UNet's call."""
    return replace(model, tuned=replace(model.tuned, call=call))


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return {
        "p50 ms": round(statistics.median(times), 3),
        "p95 ms": round(statistics.quantiles(times, n=20)[-1], 3),
    }


def main() -> None:
    """Print one JSON line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8, help="in a batch")
    parser.add_argument("--repeat", type=int, default=50, help="steps that are timed; LCM takes 50 at most")
    arguments = parser.parse_args()
    model = load(RuntimeConfig(model=ModelConfig(uri="bundled://shapes")))
    torch.set_num_threads(1)
    print(json.dumps({"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}))
    updates(arguments.images, arguments.repeat)
    sides = {"tick of the denoiser": ticks, "between two calls of an engine": between_calls}
    for name, measure in sides.items():
        times = measure(model, arguments.images, arguments.repeat)
        print(json.dumps({"Euler, images": arguments.images, "host": name, **summary(times)}), flush=True)


if __name__ == "__main__":
    main()
