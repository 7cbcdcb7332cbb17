# SPDX-License-Identifier: Apache-2.0
"""What Ray's dashboards told last, for passes that never wait for one; polled every 30 s, and whenever a pass sees a change.

A reading is of one head: what a former head told says nothing of the cluster now. It lasts two minutes after the last
answer, so that a dashboard that is busy or cut off for a moment flips no condition. It is lost with this process; what a
status holds then is on record (`status.on_record`), and the first answer comes soon.
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
    """What is known of the heads of a resource, by RayCluster: each has told something, or is silent."""

    readings: dict[str, Reading]
    silences: dict[str, Silence]


@dataclass(eq=False)
class _Head:
    """A head that is polled.

    Attributes:
        key: of the resource.
        since: since when.
        from_start: since the first pass of this process over the resource.
        awaited: since when its first answer is awaited, or the first one as it is now; None where none is.
        asked: since when it is polled for something that happened; None where that is over.
        memory: what it told.
        failure: why it did not answer the latest poll; empty where it did.
        expiry: tells of the end of the two minutes.
    """

    key: Key
    place: DashboardTarget
    since: datetime
    from_start: bool
    awaited: datetime | None
    asked: datetime | None = None
    memory: Memory = field(default_factory=Memory)
    failure: str = ""
    expiry: asyncio.TimerHandle | None = None

    def reading(self, now: datetime) -> Reading | None:
        """What it told last; None once that is too old."""
        reading = self.memory.reading
        if reading is None:
            return None
        if not self.failure:
            is_due = self.asked is not None and now - self.asked < _AWAITED
            return replace(reading, due=True) if is_due else reading
        is_old = now - reading.at > _MEMORY
        return None if is_old else replace(reading, fresh=False, failure=self.failure)

    def silence(self, now: datetime) -> Silence:
        """What is known where there is no reading."""
        is_awaited = self.awaited is not None and now - self.awaited < _AWAITED
        failure = "" if is_awaited else self.failure or "its turn has not come yet"
        return Silence(self.since, failure, from_start=self.from_start and now - self.since < _MEMORY)

    def facts(self, now: datetime) -> tuple[object, ...]:
        """What a status is computed from; the time of a fresh answer is not among it."""
        reading = self.reading(now)
        if reading is None:
            return (self.silence(now),)
        return (reading.state, reading.starts, reading.failure)

    def stop_expiry(self) -> None:
        """It is answering again, or is polled no more."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None


class ServePoller:
    """Polls the dashboards that passes name.

    Args:
        reader: polls one.
        counted: told of the end of each poll, as the Poller's.
    """

    def __init__(self, reader: ServeReader, counted: Callable[[str], None] = lambda _: None) -> None:
        self._reader = reader
        self._clock = reader.clock
        self._poller: Poller[_Head] = Poller(self._poll, self._failed, every=POLL_SECONDS, counted=counted)
        self._heads: dict[Key, dict[str, _Head]] = {}
        self._around: dict[Key, Hashable] = {}
        self._changed: Callable[[Key], None] = lambda _: None
        self._started: Callable[[Key], None] = lambda _: None

    def seen(self, key: Key, places: list[DashboardTarget], around: Hashable) -> Seen:
        """What the dashboards of a resource told last. Exactly these are polled until the next call for it.

        Args:
            key: of the resource.
            places: its dashboards.
            around: whatever else is known of it; where this has changed, they are polled at once.
        """
        before, now = self._heads.get(key), self._clock()
        has_changed = before is not None and self._around.get(key) != around
        former = dict(before or {})
        heads = {}
        for place in places:
            known = former.pop(place.cluster, None)
            if known is not None and known.place.head_uid == place.head_uid:
                heads[place.cluster] = self._keep(known, place, now, has_changed=has_changed)
            else:
                self._drop(known)
                heads[place.cluster] = self._add(key, place, now, from_start=before is None)
        for each in former.values():
            self._drop(each)
        self._heads[key], self._around[key] = heads, around
        return _seen(heads, now)

    async def ask(self, key: Key, places: list[DashboardTarget]) -> Seen:
        """Poll the dashboards of a resource once and wait for the answers: a few seconds at most."""
        heads = {
            place.cluster: _Head(key, place, self._clock(), from_start=False, awaited=None)
            for place in places
        }
        self._heads[key] = heads
        await asyncio.gather(*map(self._poller.now, heads.values()))
        return _seen(heads, self._clock())

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self._around.pop(key, None)
        for head in self._heads.pop(key, {}).values():
            self._drop(head)

    async def run(self, changed: Callable[[Key], None], started: Callable[[Key], None]) -> None:
        """Poll until cancelled.

        Args:
            changed: told of each resource for which something changed.
            started: told instead where that is the first answer since this process started: a thousand of those must not
                go before what has happened.
        """
        self._changed, self._started = changed, started
        await self._poller.run()

    def _add(self, key: Key, place: DashboardTarget, now: datetime, *, from_start: bool) -> _Head:
        head = _Head(key, place, now, from_start=from_start, awaited=now)
        self._poller.watch(head, settles=not from_start)
        return head

    def _keep(self, head: _Head, place: DashboardTarget, now: datetime, *, has_changed: bool) -> _Head:
        if head.place != place:
            head.place, head.awaited = place, now
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
        memory = await self._reader.read(head.place, head.memory, seconds)
        is_first = head.memory.reading is None and head.from_start and not head.failure
        before = head.facts(self._clock())
        head.memory, head.failure, head.awaited, head.asked = memory, "", None, None
        head.stop_expiry()
        self._tell(head, before, self._started if is_first else self._changed)

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
        self._tell(head, before, self._changed)

    def _tell(self, head: _Head, before: tuple[object, ...], changed: Callable[[Key], None]) -> None:
        if self._is_polled(head) and head.facts(self._clock()) != before:
            changed(head.key)

    def _is_polled(self, head: _Head) -> bool:
        return self._heads.get(head.key, {}).get(head.place.cluster) is head


def _seen(heads: Mapping[str, _Head], now: datetime) -> Seen:
    readings = {name: head.reading(now) for name, head in heads.items()}
    return Seen(
        {name: reading for name, reading in readings.items() if reading is not None},
        {name: heads[name].silence(now) for name, reading in readings.items() if reading is None},
    )
