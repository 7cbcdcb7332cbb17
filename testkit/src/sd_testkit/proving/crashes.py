# SPDX-License-Identifier: Apache-2.0
"""Run a change of a service with one fault at its k-th write, for every k.

The fault is a kill before or after the write, or a lost reply.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from sd_testkit.fault_proxy import Drop, Fault, Hold, Match, Rule
from sd_testkit.proving import oracles
from sd_testkit.proving.lane import CALM_SECONDS, Lane
from sd_testkit.proving.state import State

Mode = Literal["killed before", "killed after", "reply lost"]
Act = Callable[[], Awaitable[None]]
MODES: tuple[Mode, ...] = ("killed before", "killed after", "reply lost")

WRITES = Match.of("write", where=lambda request: request.resource != "leases")
_POLL = 0.1


@dataclass(frozen=True)
class Reference:
    """The end of a change without faults.

    Attributes:
        end: the final state.
        made: how often each child was created and deleted on the way.
        writes: number of writes.
    """

    end: State
    made: Counter[str]
    writes: int


@dataclass
class Findings:
    """The results of all runs.

    Attributes:
        runs: the write, and the seconds from the fault to the end, for each run that met its fault.
        broken: the checks that failed, each with its run in front.
    """

    runs: list[tuple[str, float]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def figure(self) -> str:
        """Return the number of writes and the longest time to the end, as text."""
        return f"{len(self.runs)} writes, at most {max((each[1] for each in self.runs), default=0):.1f} s to the end"


async def reference(lane: Lane, name: str, act: Act) -> Reference:
    """Run the change without faults."""
    mark, before = lane.proxy.journal.mark(), lane.witness.seen(lane.namespace, name)
    await act()
    end = await lane.settled(name)
    made = lane.witness.seen(lane.namespace, name) - before
    return Reference(end, made, len(lane.proxy.journal.writes(mark)))


@dataclass
class Crashes:
    """The same fault at one write after the other.

    Attributes:
        lane: where the changes run.
        mode: the fault.
        findings: the results so far.
    """

    lane: Lane
    mode: Mode
    findings: Findings = field(default_factory=Findings)

    async def at_write(self, number: int, name: str, act: Act, wanted: Reference) -> bool:
        """Run a change with the fault at one of its writes. Return False if the change has fewer writes."""
        lane = self.lane
        before, ends = lane.witness.seen(lane.namespace, name), len(lane.kubelet.codes)
        write = await self._break(number, name, act, wanted.end)
        if write is None:
            return False
        seconds = await lane.reaches(name, wanted.end)
        made = lane.witness.seen(lane.namespace, name) - before
        broken = [
            *await lane.stays(name, wanted.end),
            *oracles.no_more_made(wanted.made, made),
            *oracles.few_restarts(lane.kubelet.codes[ends:], 0),
        ]
        self.findings.runs.append((write, seconds))
        self.findings.broken += [f"{self.mode} write {number} ({write}): {each}" for each in broken]
        return True

    async def _break(self, number: int, name: str, act: Act, end: State) -> str | None:
        """Start the change and wait for the fault. Return the write that met it."""
        lost = self.mode == "reply lost"
        fault: Fault = Drop(after=True) if lost else Hold(after=self.mode == "killed after")
        with self.lane.proxy.rule(WRITES, fault, first=number, times=1) as rule:
            await act()
            if not await self._met(rule, name, end):
                return None
            if not lost:
                await self.lane.kill()
        if not lost:
            self.lane.start()
        return next(str(each.request) for each in reversed(self.lane.proxy.journal.entries) if each.fault)

    async def _met(self, rule: Rule, name: str, end: State) -> bool:
        """Wait for the fault, or for the end of the change without it."""
        lane = self.lane
        while not rule.hits:
            if lane.calm_for() > CALM_SECONDS and not oracles.same_end(end, await lane.state(name)):
                return False
            await asyncio.sleep(_POLL)
        if isinstance(rule.fault, Hold):
            await rule.fault.caught.wait()
        return True
