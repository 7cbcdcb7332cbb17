# SPDX-License-Identifier: Apache-2.0
"""Reading Serve's state from Ray's dashboards, with a memory: on every pass over a resource, and every 30 s between.

What replicas tell of their start is asked for along with it: while one starts, and for ten minutes once it runs, or
until it has told of its first picture.

The memory is of one head: what a former head told says nothing of the cluster now. It lasts two minutes after the last
answer, so that a dashboard that is busy or cut off for a moment flips no condition. It is lost with this process, and
nothing depends on it but smoothness: Ray is asked anew.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sd_operator.cluster import Cluster
from sd_operator.errors import SdServiceError
from sd_operator.naming import Key
from sd_operator.ray_dashboard import APPLICATIONS, STARTS, RayDashboard, Session
from sd_operator.ray_dashboard import starts as ask_starts
from sd_operator.serve_state import Reading, ServeState, carry_over, read
from sd_operator.start_report import StartReport, read_starts

logger = logging.getLogger(__name__)

POLL_SECONDS = 30.0
_MEMORY = timedelta(minutes=2)
_PAUSE_AFTER_FAILURE = timedelta(seconds=10)
_ASKED_FOR = timedelta(minutes=10)
_AT_ONCE = 16


@dataclass(frozen=True)
class Place:
    """A dashboard to ask.

    Attributes:
        cluster: the RayCluster.
        head_uid: which pod is its head.
        token: Ray's token.
    """

    namespace: str
    cluster: str
    head_uid: str
    token: str


Ask = Callable[[Place], Awaitable[dict[str, Any]]]
"""Fetch an answer; raises an SdServiceError where there is none."""


class Asks(NamedTuple):
    """Both questions to a head: to its dashboard for Serve's state, and to its proxy for the starts of replicas."""

    serve: Ask
    starts: Ask


def directly(session: Session, dashboard_url: str, proxy_url: str) -> Asks:
    """Ask the heads themselves, from inside the cluster.

    Args:
        session: the HTTP client.
        dashboard_url: address of a dashboard, with the place holders `{cluster}` and `{namespace}`.
        proxy_url: address of a head's proxy, likewise.
    """

    async def serve(place: Place) -> dict[str, Any]:
        address = dashboard_url.format(cluster=place.cluster, namespace=place.namespace)
        return await RayDashboard(session, address, place.token).details()

    async def starts(place: Place) -> dict[str, Any]:
        address = proxy_url.format(cluster=place.cluster, namespace=place.namespace)
        return await ask_starts(session, address)

    return Asks(serve, starts)


def through_api_server(cluster: Cluster) -> Asks:
    """Ask through the API server's service proxy, from wherever a kubeconfig leads."""

    async def serve(place: Place) -> dict[str, Any]:
        # The API server keeps the header Authorization for itself; Ray reads this one as well.
        headers = {"X-Ray-Authorization": f"Bearer {place.token}"}
        service = f"{place.cluster}-head-svc:dashboard"
        return await cluster.get_through_service(place.namespace, service, APPLICATIONS, headers)

    async def starts(place: Place) -> dict[str, Any]:
        service = f"{place.cluster}-head-svc:serve"
        return await cluster.get_through_service(place.namespace, service, STARTS, {})

    return Asks(serve, starts)


@dataclass(frozen=True)
class _Memory:
    """What is remembered of a place; `running_since`: when each replica was first seen running."""

    place: Place
    reading: Reading | None = None
    failed_at: datetime | None = None
    running_since: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def facts(self) -> tuple[object, ...]:
        """What a status is computed from; the time of a fresh answer is not among it."""
        reading = self.reading
        return (None,) if reading is None else (reading.state, reading.fresh, reading.starts)


class ServeReader:
    """The Serve state of every cluster that was asked for, kept up to date."""

    def __init__(self, asks: Asks, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._asks = asks
        self._clock = clock
        self._known: dict[Key, dict[str, _Memory]] = {}

    async def read(self, key: Key, places: list[Place]) -> dict[str, Reading]:
        """What the dashboards of a resource tell now, by RayCluster; none for one that told nothing lately.

        Exactly these are asked again every 30 s, until the next call for the same resource.
        """
        before = self._known.get(key, {})
        found = {place.cluster: await self._look(place, before.get(place.cluster)) for place in places}
        self._known[key] = found
        return {name: memory.reading for name, memory in found.items() if memory.reading is not None}

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self._known.pop(key, None)

    async def run(self, changed: Callable[[Key], None]) -> None:
        """Ask again and again until cancelled; tell of each resource for which something changed."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.once(changed)

    async def once(self, changed: Callable[[Key], None]) -> None:
        """Ask every known dashboard once."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def look(key: Key, cluster: str, before: _Memory) -> None:
            async with slots:
                after = await self._look(before.place, before)
            here = self._known.get(key, {})
            if here.get(cluster) is not before:
                return  # a pass over the resource was faster
            here[cluster] = after
            if after.facts != before.facts:
                changed(key)

        async with asyncio.TaskGroup() as group:
            for key, known in list(self._known.items()):
                for cluster, memory in list(known.items()):
                    group.create_task(look(key, cluster, memory))

    async def _look(self, place: Place, before: _Memory | None) -> _Memory:
        now = self._clock()
        if before is None or before.place.head_uid != place.head_uid:
            before = _Memory(place)
        if before.failed_at is not None and now - before.failed_at < _PAUSE_AFTER_FAILURE:
            return replace(before, place=place)
        try:
            state = read(await self._asks.serve(place))
        except SdServiceError as error:
            logger.debug("%s/%s: %s", place.namespace, place.cluster, error)
            return replace(before, place=place, reading=self._aged(before.reading, now), failed_at=now)
        state = carry_over(state, before.reading.state if before.reading else None)
        running = {name: now for name, each in state.models.items() if each.running}
        since = running | {name: at for name, at in before.running_since.items() if name in running}
        known = before.reading.starts if before.reading else {}
        starts = await self._starts(
            place, state, known, {name for name, at in since.items() if now - at < _ASKED_FOR}
        )
        return _Memory(place, Reading(state, now, starts=starts), running_since=since)

    async def _starts(
        self, place: Place, state: ServeState, known: Mapping[str, StartReport], young: AbstractSet[str]
    ) -> Mapping[str, StartReport]:
        """What the replicas of the model told of their start; asked where there is more to learn.

        Args:
            place: where to ask.
            state: with the replicas there are.
            known: what they told before.
            young: those that run and have not for long.
        """
        kept = {name: report for name, report in known.items() if name in state.models}
        asked = [name for name, each in state.models.items() if not each.running or name in young]
        if all(name in kept and kept[name].is_complete for name in asked):
            return kept
        try:
            told = read_starts(await self._asks.starts(place))
        except SdServiceError as error:
            logger.debug("%s/%s: %s", place.namespace, place.cluster, error)
            return kept
        return kept | {name: told[name] for name in asked if name in told}

    @staticmethod
    def _aged(reading: Reading | None, now: datetime) -> Reading | None:
        if reading is None or now - reading.at > _MEMORY:
            return None
        return replace(reading, fresh=False)
