# SPDX-License-Identifier: Apache-2.0
"""A scenario under the truth meter, and the table of what came out: scenario, seconds, and how often a Ready was wrong."""

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
    """What one scenario gave.

    Attributes:
        name: of the scenario.
        took: seconds until all that it expects was there.
        samples: one a second, of some seconds more.
        failure: what was expected and did not come; empty where all came.
    """

    name: str
    took: float
    samples: Sequence[Sample]
    failure: str = ""

    @property
    def verdict(self) -> Verdict:
        """How often a Ready was wrong."""
        return judge(self.samples)


async def play(scenario: Scenario, user: User) -> Played:
    """Play a scenario beside a meter; an expectation that fails is told, not raised."""
    meter = Meter(user)
    task = asyncio.create_task(meter.run())
    began, failure = time.monotonic(), ""
    try:
        await scenario.play(user)
    except AssertionError as error:
        failure = str(error) or "an expectation without words"
    took = time.monotonic() - began
    try:
        await asyncio.sleep(_AFTERWARDS_SECONDS)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return Played(scenario.name, took, meter.samples, failure)


def seconds_of(samples: Sequence[Sample]) -> str:
    """The scenario's seconds, a character each: what requests got, our Ready, KubeRay's; and our reasons in order."""
    signs = {True: "#", False: ".", None: " "}
    lines = [
        f"  {name:<9} {''.join(signs[getattr(each, name)] for each in samples)}"
        for name in ("served", "ours", "kuberays")
    ]
    reasons = [f"{reason} {len(list(group))}" for reason, group in groupby(each.reason for each in samples)]
    return "\n".join([*lines, f"  reasons   {', '.join(reasons)}"])


def row(name: str, verdict: Verdict) -> str:
    """One line of the table."""
    return f"| {name} | {verdict.seconds} | {verdict.ours_wrong} | {verdict.kuberays_wrong} |"


def table(verdicts: Sequence[tuple[str, Verdict]]) -> str:
    """All of it, with the sum and its shares."""
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
