# SPDX-License-Identifier: Apache-2.0
"""Measure the effect of longer turns of LoRA sets, and of turns of requests against first come, first served.

    .venv/bin/python benchmarks/turns.py [--seconds N] [--rounds N] [--switch-ms N]

The benchmark runs the denoising loop alone, with the bundled model and two random LoRAs, on this machine. All sides run
in one process and alternate, `--rounds` times; the median round of each side counts.

- Three sizes and two sets of LoRAs: twelve clients, two for each size and set. Each client sends its next request as soon
  as its image is done. A switch of LoRAs takes as long as Stable Diffusion 2.1's. `one set` runs the six clients of one
  set alone; their UNet calls have the same size. The longest wait is that of any image for its first step, or between
  two steps.
- A request of 16 images beside three clients that repeatedly request one image each, in a loop of eight slots. The wait
  is that of a single image for its first step.

The script prints JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict

from sd_runtime.config import Lora, ModelConfig, RuntimeConfig
from sd_runtime.engine.execution.batcher import Batcher, BatchLimits
from sd_runtime.engine.execution.lora_turn import TURN_SECONDS
from sd_runtime.engine.execution.runners import preparation
from sd_runtime.engine.execution.step_batch_runner import StepBatchRunner
from sd_runtime.engine.image_task import ImageTask, tasks
from sd_runtime.engine.interface import ImageRequest, LoraStrengths
from sd_runtime.engine.loader import load
from sd_runtime.engine.lora.lora_switch import LoraSwitch
from sd_runtime.engine.model import LoadedModel
from sd_runtime.engine.sampling.unet_batch import UNetBatch
from sd_runtime.observability.observer import Silent

PROMPT, STEPS, GUIDANCE = "a red circle on a white background", 15, 4.0
SIDES = (64, 96, 128)
CLIENTS_EACH = 2
PLACES, MANY, SINGLE_CLIENTS = 8, 16, 3

Figures = dict[str, float]


def with_loras(folder: Path, *names: str) -> LoadedModel:
    """Load the bundled model with a random LoRA of its UNet's attention under each name."""
    shapes = ModelConfig(uri="bundled://shapes")
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        pipeline = load(RuntimeConfig(model=shapes)).pipeline
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        pipeline.unet.add_adapter(LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
        layers = get_peft_model_state_dict(pipeline.unet)
        pipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=f"{name}.safetensors")
    loras = tuple(Lora(name=name, uri=f"file://{folder}/{name}.safetensors") for name in names)
    return load(RuntimeConfig(model=shapes, loras=loras))


def loop(model: LoadedModel, turn_seconds: float, switch_seconds: float) -> StepBatchRunner:
    """Make a denoising loop with a minimum turn for each set of LoRAs; 0: the sets alternate at every step."""
    switch: Any = SlowSwitch(model.loras, switch_seconds)
    if model.tuned.call is None:
        raise RuntimeError("the bundled model is batched by step")
    return StepBatchRunner(
        predict=UNetBatch(model.tuned.call),
        loras=switch,
        groups=Batcher(
            lambda: switch.switch_seconds if turn_seconds else 0.0,
            turn_seconds=turn_seconds,
        ),
        budget=BatchLimits(PLACES, 10**9),
        device=model.device,
        observer=Silent(),
    )


class SlowSwitch:
    """A LoRA switch that takes as long as that of a larger model.

    Attributes:
        switch_seconds: the duration of each switch.
    """

    def __init__(self, switch: LoraSwitch, seconds: float) -> None:
        self.switch_seconds = seconds
        self._switch = switch

    def activate(self, names: tuple[str, ...], strengths: LoraStrengths = ()) -> None:
        """Switch as the model does, and wait for the rest of the time."""
        before, began = self._switch.active, time.monotonic()
        self._switch.activate(names, strengths)
        if self._switch.active != before:
            time.sleep(max(0.0, began + self.switch_seconds - time.monotonic()))


class Load:
    """Clients of a denoising loop; each sends its next request as soon as all its images are done.

    Attributes:
        steps: the number of steps of all images.
        first: the seconds until the first step of each image, by client.
        gaps: the longest time between two steps of an image, or until its first step, in seconds, by client.
    """

    def __init__(
        self,
        model: LoadedModel,
        denoiser: StepBatchRunner,
        clients: Mapping[str, ImageRequest],
        *,
        fifo: bool,
    ) -> None:
        self.steps = 0
        self.first: dict[str, list[float]] = {name: [] for name in clients}
        self.gaps: dict[str, float] = dict.fromkeys(clients, 0.0)
        self._model = model
        self._prepare = preparation(model, Silent())
        self._denoiser = denoiser
        self._clients = clients
        self._fifo = fifo
        self._of: dict[ImageTask, str] = {}
        self._moved: dict[ImageTask, float] = {}

    def ask(self, name: str) -> None:
        """Send the request of a client."""
        images = tasks(self._clients[name], self._model.family)
        if failed := self._prepare(images):
            raise failed[0][1]
        for each in images:
            if self._fifo:
                each.index = 0  # as if each image were a separate request
            self._of[each], self._moved[each] = name, time.monotonic()
            self._denoiser.join(each)

    def run(self, seconds: float) -> float:
        """Run all clients for some seconds; return images per second, unfinished images counted by their done steps."""
        for name in self._clients:
            self.ask(name)
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            self._tick()
        return self.steps / STEPS / (time.monotonic() - began)

    def _tick(self) -> None:
        tick = self._denoiser.tick()
        now = time.monotonic()
        self.steps += len(tick.advanced)
        for each in tick.advanced:
            name, waited = self._of[each], now - self._moved[each]
            self._moved[each] = now
            self.gaps[name] = max(self.gaps[name], waited)
            if each.step == 1:
                self.first[name].append(waited)
        for each in tick.finished:
            name = self._of.pop(each)
            del self._moved[each]
            if name not in self._of.values():
                self.ask(name)


def request(number: int, side: int = 64, loras: tuple[str, ...] = (), images: int = 1) -> ImageRequest:
    """Return the request of a client."""
    return ImageRequest(PROMPT, "", side, side, STEPS, GUIDANCE, seed=number, count=images, loras=loras)


def mixed(*sets: str) -> dict[str, ImageRequest]:
    """Return two clients for each size and set."""
    numbers = count()
    return {
        f"{side} px, {name}, {client}": request(next(numbers), side, (name,))
        for side in SIDES
        for name in sets
        for client in range(CLIENTS_EACH)
    }


def sides(
    model: LoadedModel, seconds: float, switch_seconds: float
) -> Iterator[tuple[str, Callable[[], Figures]]]:
    """Yield every side with its name."""

    def turns(clients: Mapping[str, ImageRequest], turn_seconds: float) -> Figures:
        each = Load(model, loop(model, turn_seconds, switch_seconds), clients, fifo=not turn_seconds)
        rate = each.run(seconds)
        return {"images/s": rate, "longest wait ms": 1000 * max(each.gaps.values())}

    def many(*, fifo: bool) -> Figures:
        clients = {"many": request(0, images=MANY)}
        clients |= {f"single {number}": request(100 + number) for number in range(SINGLE_CLIENTS)}
        each = Load(model, loop(model, TURN_SECONDS, switch_seconds), clients, fifo=fifo)
        rate = each.run(seconds)
        waits = [1000 * wait for name, found in each.first.items() if name != "many" for wait in found]
        return {"images/s": rate, "wait p50 ms": statistics.median(waits), "longest wait ms": max(waits)}

    yield "one set of LoRAs", lambda: turns(mixed("ink"), TURN_SECONDS)
    yield "two sets, turns of one step", lambda: turns(mixed("ink", "oil"), 0.0)
    yield "two sets, turns that last", lambda: turns(mixed("ink", "oil"), TURN_SECONDS)
    yield f"single images beside {MANY} at once, first come, first served", lambda: many(fifo=True)
    yield f"single images beside {MANY} at once, requests take turns", lambda: many(fifo=False)


def measure(seconds: float, rounds: int, switch_seconds: float) -> dict[str, Any]:
    """Measure all figures in one run."""
    with tempfile.TemporaryDirectory() as folder:
        model = with_loras(Path(folder), "ink", "oil")
    model.device.enter("drawing")
    found: dict[str, list[Figures]] = {}
    for _ in range(rounds):
        for name, side in sides(model, seconds, switch_seconds):
            found.setdefault(name, []).append(side())
    medians: dict[str, Any] = {
        name: {key: round(statistics.median(each[key] for each in figures), 1) for key in figures[0]}
        for name, figures in found.items()
    }
    one = medians["one set of LoRAs"]["images/s"]
    for name in ("turns of one step", "turns that last"):
        medians[f"one set to two, {name}"] = round(one / medians[f"two sets, {name}"]["images/s"], 2)
    own = round(1000 * model.loras.switch_seconds, 1)
    return {"switch ms": max(own, 1000 * switch_seconds), "of the bundled model": own, **medians}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of each side in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--switch-ms", type=float, default=23.0, help="of LoRAs, as SD 2.1 takes; 0: the bundled model's own"
    )
    arguments = parser.parse_args()
    figures = measure(arguments.seconds, arguments.rounds, arguments.switch_ms / 1000)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
