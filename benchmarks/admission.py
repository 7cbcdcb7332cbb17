# SPDX-License-Identifier: Apache-2.0
"""Measure how long the admission of new requests delays running images, beside the denoising loop and within it.

    .venv/bin/python benchmarks/admission.py [--rounds N]

One image is denoised step by step. Eight requests with new prompts arrive at once, and each of them takes one step. The
model is the bundled one; its text encoder has the size of Stable Diffusion 1.5's, with random weights. Two sides
alternate within one run. In `beside` a separate thread prepares the requests, as in the engine. In `within` the denoising
thread prepares them before its next step. The median round of each side counts. The script prints JSON, in milliseconds:
the longest time between two UNet calls of the running image, and the time from the arrival until all eight images have
been denoised.

On a CPU both threads share the cores and Python's lock, so a step beside the text encoder takes longer than alone. On a GPU
they share the device.
"""

import argparse
import asyncio
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, pairwise
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from sd_runtime.config import ModelConfig, RuntimeConfig
from sd_runtime.engine.execution.admission import Admission
from sd_runtime.engine.execution.preparing import Prepare
from sd_runtime.engine.execution.runners import preparation, runner
from sd_runtime.engine.execution.worker import Worker
from sd_runtime.engine.image_task import ImageTask, tasks
from sd_runtime.engine.interface import ImageRequest, Progress
from sd_runtime.engine.loader import load
from sd_runtime.engine.model import LoadedModel
from sd_runtime.engine.postprocess.decode import Decoder
from sd_runtime.engine.postprocess.postprocessor import PostProcessor
from sd_runtime.engine.request_updates import RequestUpdates
from sd_runtime.observability.observer import Silent

ARRIVE = 8
LONG, BEFORE, AFTER = 1000, 20, 20  # steps of the running image: all, and those before and after the arrival
WIDTH, LAYERS, HEADS = 768, 12, 12  # of the text encoder of Stable Diffusion 1.5

numbers = count()


class Calls(Silent):
    """Records the end time of each UNet call."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self._another = threading.Condition()

    def step(self, pictures: int, rows: int, seconds: float) -> None:  # noqa: ARG002 - as the engine calls it
        """Record a UNet call."""
        with self._another:
            self.ends.append(time.monotonic())
            self._another.notify_all()

    def wait(self, number: int) -> None:
        """Wait until there have been `number` UNet calls."""
        with self._another:
            self._another.wait_for(lambda: len(self.ends) >= number)


class Within(Worker):
    """Prepares new requests on the denoising thread.

    Attributes:
        prepare: prepares image tasks.
    """

    prepare: Prepare

    def _take_arrived(self) -> None:
        arrived: list[RequestUpdates] = []
        while not self._inbox.empty():
            if (stream := self._inbox.get()) is None:
                self._open = False
            else:
                arrived.append(stream)
        self.prepare([each for stream in arrived for each in stream.tasks])
        for stream in arrived:
            super()._take(stream)

    def _take(self, stream: RequestUpdates | None) -> None:
        if stream is not None:
            self.prepare(stream.tasks)
        super()._take(stream)


def no_file(_: Any, __: ImageTask) -> bytes:
    """Return an empty file; this benchmark does not measure files."""
    return b""


@contextmanager
def running(model: LoadedModel, calls: Calls, *, beside: bool) -> Iterator[Callable[[RequestUpdates], None]]:
    """Start the threads of an engine; yield the function that takes requests."""
    postprocessor = PostProcessor(
        Decoder(model.pipeline), None, no_file, pixels=0, on=model.device, observer=calls
    )
    prepare = preparation(model, calls)
    worker = (Worker if beside else Within)(
        runner(model, calls), postprocessor, on=model.device, observer=calls
    )
    if isinstance(worker, Within):
        worker.prepare = prepare
        yield worker.put
        worker.put(None)
    else:
        admission = Admission(prepare, worker.put, on=model.device, observer=calls)
        yield admission.put
        admission.close()
    postprocessor.close()
    while worker.alive or postprocessor.alive:
        time.sleep(0.01)


def stream(model: LoadedModel, steps: int) -> RequestUpdates:
    """Make a request with a prompt that was never encoded."""
    request = ImageRequest(f"circle number {next(numbers)}", "", 64, 64, steps, 4.0)
    return RequestUpdates(tasks(request, model.family), asyncio.get_running_loop())


async def one_round(model: LoadedModel, *, beside: bool) -> dict[str, float]:
    """Measure one side."""
    calls = Calls()
    with running(model, calls, beside=beside) as put:
        long = stream(model, LONG)
        put(long)
        await asyncio.to_thread(calls.wait, BEFORE)
        usual = statistics.median(gaps(calls.ends))
        new = [stream(model, 1) for _ in range(ARRIVE)]
        began, at = time.monotonic(), len(calls.ends)
        for each in new:
            put(each)
        await asyncio.gather(*(finished(each) for each in new))
        took = time.monotonic() - began
        await asyncio.to_thread(calls.wait, len(calls.ends) + AFTER)
        long.cancel()
        longest = max(gaps(calls.ends[at - 1 :]))
    return {
        "usual gap": 1000 * usual,
        "longest gap": 1000 * longest,
        "until all eight are denoised": 1000 * took,
    }


async def finished(stream: RequestUpdates) -> None:
    """Read the updates of a request to its last step."""
    async for update in stream.updates():
        if isinstance(update, Progress) and update.step == update.steps:
            return


def gaps(ends: Sequence[float]) -> list[float]:
    """Return the times between consecutive calls."""
    return [after - before for before, after in pairwise(ends)]


def loaded() -> LoadedModel:
    """Load the bundled model, with a larger text encoder that computes beside its own."""
    model = load(RuntimeConfig(model=ModelConfig(uri="bundled://shapes")))
    own = model.pipeline.text_encoder
    config = CLIPTextConfig(
        vocab_size=own.config.vocab_size,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=own.config.max_position_embeddings,
        eos_token_id=own.config.eos_token_id,
    )
    large = CLIPTextModel(config).eval()
    own.register_forward_pre_hook(lambda _, given: (large(given[0]), None)[1])
    return model


async def measure(rounds: int) -> dict[str, Any]:
    """Measure all figures in one run."""
    model = loaded()
    found: dict[str, list[dict[str, float]]] = {"within": [], "beside": []}
    for _ in range(rounds):
        for name, figures in found.items():
            figures.append(await one_round(model, beside=name == "beside"))
    medians = {
        name: {key: round(statistics.median(each[key] for each in figures), 1) for key in figures[0]}
        for name, figures in found.items()
    }
    ratio = medians["within"]["longest gap"] / medians["beside"]["longest gap"]
    return {**medians, "longest gap, within / beside": round(ratio, 1)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    torch.set_num_threads(1)
    print(json.dumps(asyncio.run(measure(parser.parse_args().rounds)), indent=1))


if __name__ == "__main__":
    main()
