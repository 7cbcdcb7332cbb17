# SPDX-License-Identifier: Apache-2.0
"""Send random requests to a running service, and check that every answer is a documented one.

    .venv/bin/sdservice run examples/quickstart.yaml          # in another terminal
    .venv/bin/python benchmarks/fuzz.py [--url http://127.0.0.1:8000] [--requests 10000] [--seed 0] [--parallel 8]

The script prints the number of answers by status and their seconds. It exits with 1 and prints the first ten failed
requests if an answer is not documented, an error has no message, or a request gets no answer.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter

import httpx

from sd_testkit.generators.random_requests import RandomRequest, named, random_request

_SHOWN = 10


class Report:
    """The answers so far."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.wrong: list[str] = []

    def add(self, request: RandomRequest, answer: httpx.Response, seconds: float) -> None:
        """Record an answer."""
        self.statuses[answer.status_code] += 1
        self.seconds.append(seconds)
        if not named(answer.status_code, answer.text):
            self.wrong.append(f"{answer.status_code} {answer.text[:200]!r} to {request}")


async def _send(client: httpx.AsyncClient, requests: list[RandomRequest], report: Report) -> None:
    """Send requests from the end of the list until it is empty; several tasks share the list."""
    while requests:
        request = requests.pop()
        began = time.monotonic()
        try:
            answer = await client.request(**request.arguments())
        except httpx.HTTPError as error:
            report.wrong.append(f"{type(error).__name__} to {request}")
        else:
            report.add(request, answer, time.monotonic() - began)


async def _run(url: str, count: int, seed: int, parallel: int) -> Report:
    chance, report = random.Random(seed), Report()  # noqa: S311 - nothing secret
    requests = [random_request(chance) for _ in range(count)]
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        await asyncio.gather(*(_send(client, requests, report) for _ in range(parallel)))
    return report


def main() -> int:
    """Send the requests and print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=8, help="requests at once")
    wanted = parser.parse_args()
    began = time.monotonic()
    report = asyncio.run(_run(wanted.url, wanted.requests, wanted.seed, wanted.parallel))
    print(
        json.dumps(
            {
                "requests": wanted.requests,
                "seed": wanted.seed,
                "statuses": dict(sorted(report.statuses.items())),
                "seconds": round(time.monotonic() - began, 1),
                "p50_seconds": round(statistics.median(report.seconds or [0]), 4),
                "unnamed": len(report.wrong),
            }
        )
    )
    for line in report.wrong[:_SHOWN]:
        print(line)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
