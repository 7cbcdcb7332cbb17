# SPDX-License-Identifier: Apache-2.0
"""Measure how long a request of a known size waits while code for another size is compiled, on this machine.

    .venv/bin/python benchmarks/compiling.py [--seconds N] [--code-seconds N]

The benchmark uses the bundled model with `optimizations.compile`. One client requests 64 px repeatedly; another client
requests once a size that is not compiled yet. Torch really traces the networks, but a stand-in replaces its code
generator. The stand-in sleeps for `--code-seconds`, as a compiler of GPU kernels would work, in separate processes. The
script prints JSON: the latency in milliseconds before, during tracing and during code generation, and their ratios.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from sd_runtime.config import Batching, LiveConfig, ModelConfig, Optimizations, RuntimeConfig
from sd_runtime.engine.acceleration import compiled
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.loader import load

_LIVE = LiveConfig(batching=Batching(max_batch_size=1, max_wait_milliseconds=0))
_STEPS = 8
_OTHER_SIDE = 128


class StandIn:
    """A code generator that only waits, and leaves the graph unchanged.

    Attributes:
        seconds: the time that it takes for each graph.
        is_at_work: whether it generates code now; otherwise the network is being traced.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.is_at_work = False

    def __call__(self, graph: Any, _: Any, **__: Any) -> Any:
        """Generate code."""
        self.is_at_work = True
        time.sleep(self.seconds)
        self.is_at_work = False
        return graph.forward


async def draw(engine: DiffusionEngine, width: int) -> float:
    """Return the milliseconds of one request."""
    began = time.perf_counter()
    request = ImageRequest("a red circle on a white background", "", width, 64, _STEPS, 4.0, seed=1)
    async for _ in engine.generate(request):
        pass
    return (time.perf_counter() - began) * 1000


async def drawn_while(engine: DiffusionEngine, goes_on: Callable[[], bool]) -> list[float]:
    """Return the milliseconds of each request of the client with the known size."""
    found = []
    while goes_on():
        found.append(await draw(engine, 64))
    return found


async def measure(seconds: float, code_seconds: float) -> dict[str, float]:
    """Measure all figures in one run."""
    code = StandIn()
    compiled.BACKEND = code
    config = RuntimeConfig(
        model=ModelConfig(uri="bundled://shapes"), optimizations=Optimizations(compile=True)
    )
    model = load(config)
    engine = DiffusionEngine(model, _LIVE)
    unet = model.tuned.compiled[0]
    for each in unet.pending():
        await asyncio.to_thread(each.wait)

    def for_a_while() -> Callable[[], bool]:
        end = time.monotonic() + seconds
        return lambda: time.monotonic() < end

    before = await drawn_while(engine, for_a_while())
    code.seconds = code_seconds
    began = time.monotonic()
    await draw(engine, _OTHER_SIDE)
    (new,) = [each for each in unet.pending() if not each.is_set()]
    traced = await drawn_while(engine, lambda: not code.is_at_work)
    generated = await drawn_while(engine, lambda: code.is_at_work)
    await asyncio.to_thread(new.wait)
    took = time.monotonic() - began
    engine.close()
    usual = statistics.median(before)
    return {
        "p50 before ms": usual,
        "p50 while traced ms": statistics.median(traced),
        "p50 while code is generated ms": statistics.median(generated),
        "traced / before": statistics.median(traced) / usual,
        "generated / before": statistics.median(generated) / usual,
        "both / before": statistics.median([*traced, *generated]) / usual,
        "seconds until it ran compiled": took,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of the load before and after")
    parser.add_argument("--code-seconds", type=float, default=10.0, help="of the stand-in, for each graph")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.seconds, arguments.code_seconds))
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
