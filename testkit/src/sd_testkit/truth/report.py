# SPDX-License-Identifier: Apache-2.0
"""Run a scenario under the truth meter, and build the table of results: scenario, seconds, and how often a Ready was wrong."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sd_testkit.scenarios import Scenario, User
from sd_testkit.truth.meter import Meter, Sample, Verdict, judge

_AFTERWARDS_SECONDS = 10.0
_HEADER = ("scenario", "seconds", "ours wrong", "KubeRay's wrong")


@dataclass(frozen=True)
class Played:
    """The result of one scenario.

    Attributes:
        name: name of the scenario.
        took: seconds until all expectations were met.
        samples: one sample a second, including some seconds after the end.
        failure: the expectation that was not met; empty if all were met.
    """

    name: str
    took: float
    samples: Sequence[Sample]
    failure: str = ""

    @property
    def verdict(self) -> Verdict:
        """Count of the seconds in which a Ready was wrong."""
        return judge(self.samples)


async def play(scenario: Scenario, user: User) -> Played:
    """Run a scenario beside a meter. A failed expectation is recorded, not raised."""
    meter = Meter(user)
    task = asyncio.create_task(meter.run())
    began, failure = time.monotonic(), ""
    try:
        await scenario.play(user)
    except AssertionError as error:
        failure = str(error) or "an expectation without a message"
    took = time.monotonic() - began
    try:
        await asyncio.sleep(_AFTERWARDS_SECONDS)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return Played(scenario.name, took, meter.samples, failure)


def seconds_of(samples: Sequence[Sample]) -> str:
    """Return the scenario's seconds, a character each.

    The lines are: request outcomes, the operator's Ready, KubeRay's Ready, and the operator's reasons in order.
    """
    signs = {True: "#", False: ".", None: " "}
    lines = [
        f"  {name:<9} {''.join(signs[getattr(each, name)] for each in samples)}"
        for name in ("served", "ours", "kuberays")
    ]
    reasons = [f"{reason} {len(list(group))}" for reason, group in groupby(each.reason for each in samples)]
    return "\n".join([*lines, f"  reasons   {', '.join(reasons)}"])


def row(name: str, verdict: Verdict) -> str:
    """Return one line of the table."""
    return f"| {name} | {verdict.seconds} | {verdict.ours_wrong} | {verdict.kuberays_wrong} |"


def table(verdicts: Sequence[tuple[str, Verdict]]) -> str:
    """Return the whole table, with the sum and its shares."""
    found = [verdict for _, verdict in verdicts]
    total = Verdict(
        sum(each.seconds for each in found),
        sum(each.ours_wrong for each in found),
        sum(each.kuberays_wrong for each in found),
    )
    lines = [f"| {' | '.join(_HEADER)} |", "|---|---|---|---|", *(row(*each) for each in verdicts)]
    seconds = max(1, total.seconds)
    shares = f"{total.ours_wrong / seconds:.1%} | {total.kuberays_wrong / seconds:.1%}"
    return "\n".join([*lines, row("all", total), f"| share | | {shares} |"])
