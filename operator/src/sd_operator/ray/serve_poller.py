# SPDX-License-Identifier: Apache-2.0
"""Polls Ray's dashboards in the background, every 30 s and whenever a pass sees a change; passes use the last answer.

A reading belongs to one head, because the answer of a former head does not describe the current cluster. A reading is valid
for two minutes after the last answer, so that a dashboard that does not answer for a moment flips no condition. Readings
are lost when this process ends. The recorded status is used then (`status.on_record`), and the first answer arrives soon.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from sd_operator.naming import Key
from sd_operator.ray.poller import Poller
from sd_operator.ray.serve_reader import DashboardTarget, Memory, ServeReader
from sd_operator.ray.serve_state import Reading, Silence

POLL_SECONDS = 30.0
_MEMORY = timedelta(minutes=2)
_AWAITED = timedelta(seconds=10)


class Seen(NamedTuple):
    """The readings of a resource's heads, and the silences of the heads without one, by RayCluster."""

    readings: dict[str, Reading]
    silences: dict[str, Silence]


@dataclass(eq=False)
class _Head:
    """A head that is polled.

    Attributes:
        key: the resource.
        since: start of the polls.
        from_start: whether it is polled since the first pass of this process over the resource.
        awaited: start of the wait for its first answer, also after a change of the target; None if there is no such wait.
        asked: when a poll was requested after a change; None once it is complete.
        memory: its last answers.
        failure: why it did not answer the latest poll; empty if it did.
        expiry: timer for the end of the two minutes.
    """

    key: Key
    target: DashboardTarget
    since: datetime
    from_start: bool
    awaited: datetime | None
    asked: datetime | None = None
    memory: Memory = field(default_factory=Memory)
    failure: str = ""
    expiry: asyncio.TimerHandle | None = None

    def reading(self, now: datetime) -> Reading | None:
        """The last reading; None if there is none or it is too old."""
        reading = self.memory.reading
        if reading is None:
            return None
        if not self.failure:
            is_due = self.asked is not None and now - self.asked < _AWAITED
            return replace(reading, due=True) if is_due else reading
        is_old = now - reading.at > _MEMORY
        return None if is_old else replace(reading, fresh=False, failure=self.failure)

    def silence(self, now: datetime) -> Silence:
        """The state of a head without a reading."""
        is_awaited = self.awaited is not None and now - self.awaited < _AWAITED
        failure = "" if is_awaited else self.failure or "the first poll has not started yet"
        return Silence(self.since, failure, from_start=self.from_start and now - self.since < _MEMORY)

    def facts(self, now: datetime) -> tuple[object, ...]:
        """The facts from which a status is computed, without the time of a fresh answer."""
        reading = self.reading(now)
        if reading is None:
            return (self.silence(now),)
        return (reading.state, reading.starts, reading.failure)

    def stop_expiry(self) -> None:
        """Stop the expiry timer, because the head answers again or is no longer polled."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None


class ServePoller:
    """Polls the dashboards that passes name.

    Args:
        reader: polls one dashboard.
        counted: called at the end of each poll, as in the Poller.
    """

    def __init__(self, reader: ServeReader, counted: Callable[[str], None] = lambda _: None) -> None:
        self._reader = reader
        self._clock = reader.clock
        self._poller: Poller[_Head] = Poller(self._poll, self._failed, every=POLL_SECONDS, counted=counted)
        self._heads: dict[Key, dict[str, _Head]] = {}
        self._around: dict[Key, Hashable] = {}
        self._changed: Callable[[Key], None] = lambda _: None
        self._started: Callable[[Key], None] = lambda _: None

    def seen(self, key: Key, targets: list[DashboardTarget], around: Hashable) -> Seen:
        """The last answers of a resource's dashboards; exactly these are polled until the next call for the resource.

        Args:
            key: the resource.
            targets: its dashboards.
            around: a value of the other known facts; if it has changed, the dashboards are polled at once.
        """
        before, now = self._heads.get(key), self._clock()
        has_changed = before is not None and self._around.get(key) != around
        former = dict(before or {})
        heads = {}
        for target in targets:
            known = former.pop(target.cluster, None)
            if known is not None and known.target.head_uid == target.head_uid:
                heads[target.cluster] = self._keep(known, target, now, has_changed=has_changed)
            else:
                self._drop(known)
                heads[target.cluster] = self._add(key, target, now, from_start=before is None)
        for each in former.values():
            self._drop(each)
        self._heads[key], self._around[key] = heads, around
        return _seen(heads, now)

    async def ask(self, key: Key, targets: list[DashboardTarget]) -> Seen:
        """Poll the dashboards of a resource once and wait for the answers, a few seconds at most."""
        heads = {
            target.cluster: _Head(key, target, self._clock(), from_start=False, awaited=None)
            for target in targets
        }
        self._heads[key] = heads
        await asyncio.gather(*map(self._poller.now, heads.values()))
        return _seen(heads, self._clock())

    def forget(self, key: Key) -> None:
        """Stop polling the dashboards of a resource that is gone."""
        self._around.pop(key, None)
        for head in self._heads.pop(key, {}).values():
            self._drop(head)

    async def run(self, changed: Callable[[Key], None], started: Callable[[Key], None]) -> None:
        """Poll until cancelled.

        Args:
            changed: called with each resource whose answer changed.
            started: called instead for the first answer since this process started, because a thousand of those must not go
                before events.
        """
        self._changed, self._started = changed, started
        await self._poller.run()

    def _add(self, key: Key, target: DashboardTarget, now: datetime, *, from_start: bool) -> _Head:
        head = _Head(key, target, now, from_start=from_start, awaited=now)
        self._poller.watch(head, settles=not from_start)
        return head

    def _keep(self, head: _Head, target: DashboardTarget, now: datetime, *, has_changed: bool) -> _Head:
        if head.target != target:
            head.target, head.awaited = target, now
            self._poller.ask(head)
        elif has_changed:
            head.asked = now
            self._poller.ask(head)
        return head

    def _drop(self, head: _Head | None) -> None:
        if head is not None:
            head.stop_expiry()
            self._poller.forget(head)

    async def _poll(self, head: _Head, seconds: float) -> None:
        memory = await self._reader.read(head.target, head.memory, seconds)
        is_first = head.memory.reading is None and head.from_start and not head.failure
        before = head.facts(self._clock())
        head.memory, head.failure, head.awaited, head.asked = memory, "", None, None
        head.stop_expiry()
        self._report(head, before, self._started if is_first else self._changed)

    def _failed(self, head: _Head, words: str) -> None:
        now = self._clock()
        before = head.facts(now)
        head.failure, head.awaited, head.asked = words, None, None
        until = (head.memory.reading.at if head.memory.reading else head.since) + _MEMORY
        if head.reading(now) is None:
            head.memory = replace(head.memory, reading=None)
        if head.expiry is None and until > now and self._is_polled(head):
            # A moment later, so that the two minutes are over by either clock.
            seconds = (until - now).total_seconds() + 0.1
            head.expiry = asyncio.get_running_loop().call_later(seconds, self._changed, head.key)
        self._report(head, before, self._changed)

    def _report(self, head: _Head, before: tuple[object, ...], changed: Callable[[Key], None]) -> None:
        if self._is_polled(head) and head.facts(self._clock()) != before:
            changed(head.key)

    def _is_polled(self, head: _Head) -> bool:
        return self._heads.get(head.key, {}).get(head.target.cluster) is head


def _seen(heads: Mapping[str, _Head], now: datetime) -> Seen:
    readings = {name: head.reading(now) for name, head in heads.items()}
    return Seen(
        {name: reading for name, reading in readings.items() if reading is not None},
        {name: heads[name].silence(now) for name, reading in readings.items() if reading is None},
    )
