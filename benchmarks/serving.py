# SPDX-License-Identifier: Apache-2.0
"""What the engine and the service around it give and cost, against the stock pipeline on the same machine.

    .venv/bin/python benchmarks/serving.py [--pictures N] [--clients N] [--rounds N] [--mixed N] [--output FOLDER]

All sides run in one run, with bundled://shapes at 64x64, 15 steps and guidance: the stock diffusers pipeline one
picture at a time and eight at once, the engine alone and with `--clients` in parallel, as it is and compiled
(`optimizations.compile`). They take turns, `--rounds` times, so that a slow minute of the machine slows all of them; of
each the median round counts. Then the engine as it is over HTTP through Ray Serve, and open-loop load: requests arrive
by a Poisson process at shares of the closed-loop rate. Last a mixed load: three sizes, 5 to 50 steps, a fifth of the
clients leave early; it must end without an error, let no size wait much longer than another, and leave memory flat.
Writes serving.json, serving.md and serving.png.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
import yaml
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
SIDES = (64, 96, 128)
LEAVE_SHARE = 0.2
DRAW_LIMIT_SECONDS = 300

ALONE = "stock pipeline, one at a time"

Draw = Callable[[int], Awaitable[None]]
Program = Callable[[], dict[str, dict[str, float]]]


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    ordered = sorted(seconds)
    points = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        f"{name} ms": round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
        for name, share in points.items()
    }


async def closed(draw: Draw, clients: int, pictures: int) -> dict[str, float]:
    """Clients that each ask again as soon as they are answered."""
    seconds: list[float] = []
    numbers = iter(range(pictures))

    async def client() -> None:
        for number in numbers:
            began = time.monotonic()
            await draw(number)
            seconds.append(time.monotonic() - began)

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    return {"pictures/s": round(pictures / (time.monotonic() - began), 2), **quantiles(seconds)}


async def opened(draw: Draw, rate: float, pictures: int) -> dict[str, float]:
    """Requests that arrive whenever they do, `rate` a second on average, answered or not."""
    rng, seconds = random.Random(1), []  # noqa: S311 - no secret

    async def one(number: int, due: float) -> None:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await draw(number)
        seconds.append(time.monotonic() - due)

    due, tasks = time.monotonic(), []
    for number in range(pictures):
        due += rng.expovariate(rate)
        tasks.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*tasks)
    return {"rate/s": round(rate, 2), **quantiles(seconds)}


def in_turn(programs: Sequence[Program], rounds: int) -> dict[str, dict[str, float]]:
    """Every program once in each round, in a process of its own; of each of their sides the median round."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(rounds):
        print(f"# round {number + 1} of {rounds}", flush=True)
        for program in programs:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                for name, figures in process.submit(program).result().items():
                    found[name].append(figures)
    return {
        name: sorted(each, key=lambda figures: figures["pictures/s"])[rounds // 2]
        for name, each in found.items()
    }


def loaded(**optimizations: bool) -> LoadedModel:
    """The bundled model as a replica loads it."""
    shapes = ModelConfig(uri="bundled://shapes")
    return load(RuntimeConfig(model=shapes, optimizations=Optimizations(**optimizations)))


def stock(pictures: int) -> dict[str, dict[str, float]]:
    """The pipeline as diffusers has it, one picture at a time and eight at once."""
    pipeline = loaded().pipeline
    torch.set_num_threads(os.cpu_count() or 1)  # as a program has it that does not ask for less

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

    def side(at_once: int) -> dict[str, float]:
        call(at_once, 0)
        seconds = [call(at_once, number) for number in range(pictures // at_once)]
        return {"pictures/s": round(at_once * len(seconds) / sum(seconds), 2), **quantiles(seconds)}

    return {ALONE: side(1), "stock pipeline, calls of eight": side(8)}


def engine(name: str, clients: int, pictures: int, **optimizations: bool) -> dict[str, dict[str, float]]:
    """The engine in its process, with a lone client and with several."""
    model = loaded(**optimizations)

    async def both() -> dict[str, dict[str, float]]:
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


def without_http(clients: int, pictures: int, rounds: int) -> dict[str, dict[str, float]]:
    """Stock pipeline, engine, and engine compiled."""
    # What is told to torch's threads for the sake of other programs would slow the stock pipeline alone.
    os.environ.pop("OMP_WAIT_POLICY", None)
    programs = (
        partial(stock, pictures),
        partial(engine, "engine", clients, pictures),
        partial(engine, "engine compiled", clients, pictures, compile=True),
    )
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault(compile_cache.VARIABLE, cache)
        return in_turn(programs, rounds)


def ratios(figures: Mapping[str, dict[str, float]], clients: int) -> dict[str, float]:
    """What is claimed, from the figures of one run."""
    stock_alone = figures[ALONE]
    found: dict[str, float] = {}
    for side in ("engine", "engine compiled"):
        many, one = figures[f"{side}, {clients} clients"], figures[f"{side}, one client"]
        found[f"{side} to stock, pictures/s"] = round(many["pictures/s"] / stock_alone["pictures/s"], 2)
        found[f"a lone request, {side} to stock, p50"] = round(one["p50 ms"] / stock_alone["p50 ms"], 3)
    found["HTTP and Serve add, p50 ms"] = figures["of which not the engine's"]["p50 ms"]
    return found


async def service(clients: int, pictures: int, mixed_requests: int) -> dict[str, Any]:
    """The same over HTTP through Ray Serve, then the open loop and the mixed load."""
    resource = parse(yaml.safe_load(EXAMPLE.read_text()))
    (port,) = ray_process.free_ports(1)
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with (
        serving.serve(resource, port, lambda phase: print(f"# {phase}", flush=True)) as local,
        httpx.AsyncClient(base_url=local.url, timeout=DRAW_LIMIT_SECONDS, limits=limits) as client,
    ):
        query = {"prompt": PROMPT, "img_size": SIDE, "steps": STEPS, "guidance": GUIDANCE}
        added: list[float] = []

        async def draw(number: int) -> None:
            began = time.monotonic()
            answer = await client.get("/imagine", params={**query, "seed": number})
            answer.raise_for_status()
            engine = float(answer.headers["Server-Timing"].partition("dur=")[2]) / 1000
            added.append(time.monotonic() - began - engine)

        await closed(draw, clients, 2 * clients)
        added.clear()
        lone = await closed(draw, 1, pictures)
        found: dict[str, Any] = {
            "HTTP, one client": lone,
            "of which not the engine's": quantiles(added),
            f"HTTP, {clients} clients": await closed(draw, clients, 2 * pictures),
        }
        most = found[f"HTTP, {clients} clients"]["pictures/s"]
        for share in SHARES:
            found[f"HTTP, open loop at {share:.0%}"] = await opened(draw, share * most, pictures)
        if mixed_requests:
            found["mixed load"] = await mixed(client, mixed_requests, clients)
        return found


async def mixed(client: httpx.AsyncClient, requests: int, clients: int) -> dict[str, Any]:
    """Sizes, steps and patience at random; memory of all replicas before, in the middle and after."""
    rng, answered, errors, left = random.Random(2), {side: [] for side in SIDES}, [], 0  # noqa: S311
    numbers, memory = iter(range(requests)), [resident()]

    async def one(number: int) -> None:
        nonlocal left
        side, steps = rng.choice(SIDES), rng.randint(5, 50)
        query = {"prompt": PROMPT, "img_size": side, "steps": steps, "seed": number}
        patience = rng.uniform(0.02, 0.3) if rng.random() < LEAVE_SHARE else DRAW_LIMIT_SECONDS
        began = time.monotonic()
        try:
            answer = await client.get("/imagine", params=query, timeout=patience)
        except httpx.TimeoutException:
            left += 1
            return
        if answer.status_code != 200:  # noqa: PLR2004
            errors.append(answer.text[:200])
        answered[side].append((time.monotonic() - began) / steps)

    async def endless() -> None:
        for number in numbers:
            if number and number % (requests // 4) == 0:
                memory.append(resident())
            await one(number)

    await asyncio.gather(*(endless() for _ in range(clients)))
    memory.append(resident())
    return {
        "requests": requests,
        "left early": left,
        "errors": errors,
        "ms per step by side, p50": {
            s: round(1000 * statistics.median(each), 1) for s, each in answered.items()
        },
        "ms per step by side, p99": {s: quantiles(each)["p99 ms"] for s, each in answered.items()},
        "memory of Ray, MB": memory,
    }


def resident() -> int:
    """Memory of every process below this one, in MB; pages that they share count once in each."""
    below = psutil.Process().children(recursive=True)
    return round(sum(each.memory_info().rss for each in below if each.is_running()) / 1e6)


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    names = ["pictures/s", "rate/s", "p50 ms", "p95 ms", "p99 ms"]
    rows = [
        f"| {side} | " + " | ".join(str(each.get(name, "")) for name in names) + " |"
        for side, each in figures.items()
        if "p50 ms" in each
    ]
    return "\n".join([f"| side | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|", *rows]) + "\n"


def plot(figures: dict[str, Any], file: Path) -> None:
    """Pictures per second of each side, and latency over the rate of the open loop."""
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
    parser.add_argument("--rounds", type=int, default=3, help="that the sides without HTTP take turns")
    parser.add_argument("--mixed", type=int, default=2000, help="requests of the mixed load; 0 leaves it out")
    parser.add_argument("--output", type=Path, default=Path(".cache/benchmarks"))
    asked = parser.parse_args()
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    figures: dict[str, Any] = without_http(asked.clients, asked.pictures, asked.rounds)
    figures |= serving.run(service(asked.clients, asked.pictures, asked.mixed))
    figures["ratios"] = ratios(figures, asked.clients)
    asked.output.mkdir(parents=True, exist_ok=True)
    whole = json.dumps({"machine": machine, **figures}, indent=2)
    (asked.output / "serving.json").write_text(whole + "\n")
    (asked.output / "serving.md").write_text(table(figures))
    plot(figures, asked.output / "serving.png")
    print(whole)


if __name__ == "__main__":
    main()
