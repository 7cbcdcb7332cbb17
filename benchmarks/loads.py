# SPDX-License-Identifier: Apache-2.0
"""The loads of the serving benchmark, with latencies, and with CPU and memory of the serving processes."""

import asyncio
import random
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import psutil

SIDES = (64, 96, 128)
LEAVE_SHARE = 0.2
DRAW_LIMIT_SECONDS = 300

Draw = Callable[[int], Awaitable[None]]
Figures = dict[str, Any]

# A part of the command line, and the name of the process in the figures; the first match counts.
_PROCESSES = (
    (r"ServeReplica:\w+:(\w+)", r"\1"),
    ("ProxyActor", "proxy"),
    ("ServeController", "controller"),
    ("gcs_server", "GCS"),
    ("raylet/raylet", "raylet"),
    ("dashboard", "dashboard"),
)


def quantiles(seconds: Sequence[float], digits: int = 1) -> Figures:
    """Return p50, p95 and p99 in milliseconds."""
    ordered = sorted(seconds)
    points = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        f"{name} ms": round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], digits)
        for name, share in points.items()
    }


async def closed(draw: Draw, clients: int, pictures: int) -> Figures:
    """Run a closed loop: each client sends its next request as soon as it has its answer."""
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


async def opened(draw: Draw, rate: float, pictures: int) -> Figures:
    """Run an open loop: requests arrive at random, `rate` per second on average, whether or not others are answered."""
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


async def mixed(
    client: aiohttp.ClientSession, url: str, prompt: str, *, requests: int, clients: int
) -> Figures:
    """Run a load of random sizes, steps and patience; measure memory before, after each quarter and at the end."""
    rng, answered, errors, left = random.Random(2), {side: [] for side in SIDES}, [], 0  # noqa: S311
    numbers, memory = iter(range(requests)), [resident()]

    async def one(number: int) -> None:
        nonlocal left
        side, steps = rng.choice(SIDES), rng.randint(5, 50)
        query = {"prompt": prompt, "img_size": side, "steps": steps, "seed": number}
        patience = rng.uniform(0.02, 0.3) if rng.random() < LEAVE_SHARE else DRAW_LIMIT_SECONDS
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience), client.get(url, params=query) as answer:
                body = await answer.read()
        except TimeoutError:
            left += 1
            return
        if answer.status != 200:  # noqa: PLR2004
            errors.append(body[:200].decode(errors="replace"))
        answered[side].append((time.monotonic() - began) / steps)

    async def endless() -> None:
        for number in numbers:
            if number and number % (requests // 4) == 0:
                memory.append(resident())
            await one(number)

    await asyncio.gather(*(endless() for _ in range(clients)))
    memory.append(resident())
    by_side = {side: quantiles(each) for side, each in answered.items()}
    return {
        "requests": requests,
        "left early": left,
        "errors": errors,
        "ms per step by side, p50": {side: each["p50 ms"] for side, each in by_side.items()},
        "ms per step by side, p99": {side: each["p99 ms"] for side, each in by_side.items()},
        "memory, MB": {name: [each.get(name, 0) for each in memory] for name in memory[-1]},
        "growth in the second half": round(memory[-1]["all"] / memory[len(memory) // 2]["all"] - 1, 4),
    }


def median_round(rounds: Sequence[Figures]) -> Figures:
    """Return the round whose rate, or median latency, is the median of all rounds."""
    by = "pictures/s" if "pictures/s" in rounds[0] else "p50 ms"
    return sorted(rounds, key=lambda figures: float(figures[by]))[len(rounds) // 2]


def median_ratio(above: Sequence[Figures], below: Sequence[Figures], name: str) -> float:
    """Return the median of the ratios of each round; the speed of the machine drifts from round to round."""
    pairs = zip(above, below, strict=True)
    return round(statistics.median(one[name] / other[name] for one, other in pairs), 3)


def resident() -> dict[str, int]:
    """Return the memory of this process's descendants, by process name and in total, in MB.

    Pages that several processes share count once in each of them.
    """
    found: dict[str, float] = defaultdict(float)
    for name, process in _processes():
        found[name] += process.memory_info().rss / 1e6
    found["all"] = sum(found.values())
    return {name: round(size) for name, size in found.items()}


def cpu_seconds() -> dict[str, float]:
    """Return the CPU seconds of this process's descendants, by process name, and of this process as `client`."""
    found: dict[str, float] = defaultdict(float)
    for name, process in (*_processes(), ("client", psutil.Process())):
        times = process.cpu_times()
        found[name] += times.user + times.system
    return dict(found)


def cpu_milliseconds(before: Mapping[str, float], requests: int) -> dict[str, float]:
    """Return the CPU milliseconds per request since `before`, by process name."""
    now = cpu_seconds()
    found = {name: round(1000 * (now[name] - before.get(name, 0.0)) / requests, 2) for name in now}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _processes() -> list[tuple[str, psutil.Process]]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found.append((_kind(" ".join(process.cmdline())), process))
    return found


def _kind(command: str) -> str:
    for pattern, name in _PROCESSES:
        if match := re.search(pattern, command):
            return match.expand(name)
    return "others"
