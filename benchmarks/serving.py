# SPDX-License-Identifier: Apache-2.0
"""Measure the gain and the cost of the engine and its service, against the stock pipeline on the same machine.

    .venv/bin/python benchmarks/serving.py [--pictures N] [--clients N] [--rounds N] [--mixed N] [--output FOLDER]

All sides run in one run, with bundled://shapes at 64x64, 15 steps and guidance:

- the stock diffusers pipeline, one picture at a time and eight at once;
- the engine with one client and with `--clients` in parallel, eager and compiled (`optimizations.compile`);
- the host time of the engine's ticks with eight images;
- the eager engine over HTTP through Ray Serve, with the CPU that each process takes for a request.

The sides alternate, `--rounds` times, so that a slow minute of the machine slows all of them. The median round of each
side counts; a ratio is the median of the ratios of the rounds. An open-loop load follows: requests arrive by a Poisson
process at shares of the closed-loop rate.

The last load is mixed: three sizes, 5 to 50 steps, and a fifth of the clients disconnect early. It must end without an
error, no size may wait much longer than another, and memory must stay flat. The script writes serving.json, serving.md
and serving.png.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import step_overhead
import torch
import yaml
from loads import (
    DRAW_LIMIT_SECONDS,
    Draw,
    Figures,
    closed,
    cpu_milliseconds,
    cpu_seconds,
    median_ratio,
    median_round,
    mixed,
    opened,
    quantiles,
)
from matplotlib.figure import Figure

from sd_operator.api import parse
from sd_operator.local import ray_process, serving
from sd_runtime.config import LiveConfig, ModelConfig, Optimizations, RuntimeConfig
from sd_runtime.engine.acceleration import compile_cache
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.interface import ImageRequest, Picture
from sd_runtime.engine.loader import load
from sd_runtime.engine.model import LoadedModel

EXAMPLE = Path(__file__).parent.parent / "examples/quickstart.yaml"
PROMPT, SIDE, STEPS, GUIDANCE = "a red circle on a white background", 64, 15, 4.0
SHARES = (0.3, 0.6, 0.8, 0.95)
AT_ONCE = 8
TICKS = 50

PATH = "/imagine"
ALONE, CALLS = "stock pipeline, one at a time", "stock pipeline, calls of eight"
LONE_HTTP, ADDED, TICK = "HTTP, one client", "of which not the engine's", "a tick beside the UNet call"

Rounds = dict[str, list[Figures]]
Program = Callable[[], dict[str, Figures]]


def in_turn(programs: Sequence[Program], rounds: int) -> Rounds:
    """Run every program once in each round, in a separate process; return all rounds of each side."""
    found: Rounds = defaultdict(list)
    for number in range(rounds):
        print(f"# round {number + 1} of {rounds}", flush=True)
        for program in programs:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                for name, figures in process.submit(program).result().items():
                    found[name].append(figures)
                    print(json.dumps({name: figures}), flush=True)
    return found


def loaded(**optimizations: bool) -> LoadedModel:
    """Load the bundled model as a replica does."""
    shapes = ModelConfig(uri="bundled://shapes")
    return load(RuntimeConfig(model=shapes, optimizations=Optimizations(**optimizations)))


def stock(pictures: int) -> dict[str, Figures]:
    """Measure the stock diffusers pipeline, one picture at a time and eight at once."""
    pipeline = loaded().pipeline
    torch.set_num_threads(os.cpu_count() or 1)  # the default of a program that sets no other number

    def call(at_once: int, number: int) -> float:
        began = time.monotonic()
        pipeline(
            [PROMPT] * at_once,
            width=SIDE,
            height=SIDE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(number + index) for index in range(at_once)],
        )
        return time.monotonic() - began

    def side(at_once: int) -> Figures:
        call(at_once, 0)
        seconds = [call(at_once, number) for number in range(pictures // at_once)]
        return {"pictures/s": round(at_once * len(seconds) / sum(seconds), 2), **quantiles(seconds)}

    return {ALONE: side(1), CALLS: side(AT_ONCE)}


def engine(name: str, clients: int, pictures: int, **optimizations: bool) -> dict[str, Figures]:
    """Measure the engine in its process, with one client and with several."""
    model = loaded(**optimizations)

    async def both() -> dict[str, Figures]:
        running = DiffusionEngine(model, LiveConfig())

        async def draw(number: int) -> None:
            request = ImageRequest(PROMPT, "", SIDE, SIDE, STEPS, GUIDANCE, seed=number)
            async with aclosing(running.generate(request)) as updates:
                if not [update async for update in updates if isinstance(update, Picture)]:
                    raise RuntimeError("no picture")

        try:
            await closed(draw, clients, 2 * clients)
            return {
                f"{name}, one client": await closed(draw, 1, pictures),
                f"{name}, {clients} clients": await closed(draw, clients, 2 * pictures),
            }
        finally:
            running.close()

    return asyncio.run(both())


def tick() -> dict[str, Figures]:
    """Measure the times between UNet calls in a running engine whose UNet returns its input at once."""
    model = loaded()
    torch.set_num_threads(1)
    times = step_overhead.between_calls(model, AT_ONCE, TICKS)
    return {TICK: quantiles([each / 1000 for each in times], digits=3)}


def http(clients: int, pictures: int) -> dict[str, Figures]:
    """Measure the service with one client and with several, and the CPU of each of its processes per request."""

    async def both() -> dict[str, Figures]:
        async with service(clients) as (draw, added, _):
            before = cpu_seconds()
            lone = await closed(draw, 1, pictures)
            lone["CPU ms"] = cpu_milliseconds(before, pictures)
            beyond = quantiles(added)
            before = cpu_seconds()
            many = await closed(draw, clients, 2 * pictures)
            many["CPU ms"] = cpu_milliseconds(before, 2 * pictures)
        return {LONE_HTTP: lone, ADDED: beyond, f"HTTP, {clients} clients": many}

    return serving.run(both())


@asynccontextmanager
async def service(clients: int) -> AsyncIterator[tuple[Draw, list[float], aiohttp.ClientSession]]:
    """Start and warm up a service; yield a request function, the waits beyond the engine's time in s, and the client."""
    resource = parse(yaml.safe_load(EXAMPLE.read_text()))
    (port,) = ray_process.free_ports(1)
    query = {"prompt": PROMPT, "img_size": SIDE, "steps": STEPS, "guidance": GUIDANCE}
    added: list[float] = []
    limit = aiohttp.ClientTimeout(total=DRAW_LIMIT_SECONDS)
    async with (
        serving.serve(resource, port, lambda phase: print(f"# {phase}", flush=True)) as local,
        aiohttp.ClientSession(local.url, timeout=limit, connector=aiohttp.TCPConnector(limit=0)) as client,
    ):

        async def draw(number: int) -> None:
            began = time.monotonic()
            async with client.get(PATH, params={**query, "seed": number}) as answer:
                answer.raise_for_status()
                await answer.read()
            engine = float(answer.headers["Server-Timing"].partition("dur=")[2]) / 1000
            added.append(time.monotonic() - began - engine)

        await closed(draw, clients, 2 * clients)
        added.clear()
        yield draw, added, client


async def open_and_mixed(rate: float, clients: int, pictures: int, requests: int) -> dict[str, Figures]:
    """Run the open loop at shares of a rate, and the mixed load."""
    async with service(clients) as (draw, _, client):
        found = {
            f"HTTP, open loop at {share:.0%}": await opened(draw, share * rate, pictures) for share in SHARES
        }
        if requests:
            found["mixed load"] = await mixed(client, PATH, PROMPT, requests=requests, clients=clients)
    return found


def sides(clients: int, pictures: int, rounds: int) -> Rounds:
    """Run all sides that alternate."""
    # Environment settings of torch's threads for other programs would slow only the stock pipeline.
    os.environ.pop("OMP_WAIT_POLICY", None)
    programs = (
        partial(stock, pictures),
        partial(engine, "engine", clients, pictures),
        partial(http, clients, pictures),
        partial(engine, "engine compiled", clients, pictures, compile=True),
        tick,
    )
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault(compile_cache.VARIABLE, cache)
        return in_turn(programs, rounds)


def goals(found: Rounds, clients: int) -> dict[str, float]:
    """Return the ratios that the project claims, from the figures of one run."""
    many, one = f"{clients} clients", "one client"
    eager, compiled = found[f"engine, {many}"], found[f"engine compiled, {many}"]
    rate, latency = "pictures/s", "p50 ms"
    return {
        "engine to stock's calls of eight": median_ratio(eager, found[CALLS], rate),
        "HTTP to engine": median_ratio(found[f"HTTP, {many}"], eager, rate),
        "HTTP and Serve add to a lone request, p50 ms": statistics.median(
            each[latency] for each in found[ADDED]
        ),
        "compiled to eager": median_ratio(compiled, eager, rate),
        "a tick beside the UNet call, p50 ms": statistics.median(each[latency] for each in found[TICK]),
        "a lone request to stock's, p50": median_ratio(found[f"engine, {one}"], found[ALONE], latency),
        "a lone request, compiled, to stock's, p50": median_ratio(
            found[f"engine compiled, {one}"], found[ALONE], latency
        ),
        "engine to stock, one at a time": median_ratio(eager, found[ALONE], rate),
    }


def table(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    names = ["pictures/s", "rate/s", "p50 ms", "p95 ms", "p99 ms"]
    rows = [
        f"| {side} | " + " | ".join(str(each.get(name, "")) for name in names) + " |"
        for side, each in figures.items()
        if "p50 ms" in each
    ]
    return "\n".join([f"| side | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|", *rows]) + "\n"


def plot(figures: dict[str, Any], file: Path) -> None:
    """Plot the pictures per second of each side, and the latency over the rate of the open loop."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    sides = [side for side, each in figures.items() if "pictures/s" in each]
    left.barh(sides[::-1], [figures[side]["pictures/s"] for side in sides[::-1]])
    left.set_xlabel("pictures per second")
    steps = [each for each in figures.values() if "rate/s" in each]
    for name in ("p50 ms", "p95 ms", "p99 ms"):
        right.plot([each["rate/s"] for each in steps], [each[name] for each in steps], "o-", label=name)
    right.set_xlabel("requests per second, open loop")
    right.set_ylabel("latency, ms")
    right.legend()
    figure.savefig(file, dpi=110)


def main() -> None:
    """Run all sides, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=96, help="per side and round")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="that the sides take turns")
    parser.add_argument("--mixed", type=int, default=2000, help="requests of the mixed load; 0 leaves it out")
    parser.add_argument("--output", type=Path, default=Path(".cache/benchmarks"))
    asked = parser.parse_args()
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    found = sides(asked.clients, asked.pictures, asked.rounds)
    figures: dict[str, Any] = {name: median_round(each) for name, each in found.items()}
    figures["goals"] = goals(found, asked.clients)
    print(json.dumps(figures["goals"], indent=2), flush=True)
    most = figures[f"HTTP, {asked.clients} clients"]["pictures/s"]
    figures |= serving.run(open_and_mixed(most, asked.clients, asked.pictures, asked.mixed))
    asked.output.mkdir(parents=True, exist_ok=True)
    whole = json.dumps({"machine": machine, **figures}, indent=2)
    (asked.output / "serving.json").write_text(whole + "\n")
    (asked.output / "serving.md").write_text(table(figures))
    plot(figures, asked.output / "serving.png")
    print(whole)


if __name__ == "__main__":
    main()
