# SPDX-License-Identifier: Apache-2.0
"""One poll of a head: Serve's state from its dashboard, and what replicas tell of their start from its proxy.

Starts are asked for while a replica starts, and for ten minutes once it runs, or until it has told of its first picture.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sd_operator.bounded_http import Session
from sd_operator.errors import SdServiceError
from sd_operator.kube import Cluster
from sd_operator.ray.dashboard import APPLICATIONS, STARTS, RayDashboard
from sd_operator.ray.dashboard import starts as ask_starts
from sd_operator.ray.replica_starts import StartReport, read_starts
from sd_operator.ray.serve_state import Reading, ServeState, carry_over, read

logger = logging.getLogger(__name__)

_ASKED_FOR = timedelta(minutes=10)
_STARTS_SECONDS = 1.0  # reports of starts are worth no wait: Serve's state was read by then


@dataclass(frozen=True)
class DashboardTarget:
    """A dashboard to ask.

    Attributes:
        cluster: the RayCluster.
        head_uid: which pod is its head.
        token: Ray's token.
        ready: whether the head is: what it answered before that says little.
    """

    namespace: str
    cluster: str
    head_uid: str
    token: str = field(repr=False)
    ready: bool = True


Ask = Callable[[DashboardTarget, float], Awaitable[dict[str, Any]]]
"""Fetch an answer within so many seconds; raises an SdServiceError where there is none, RayTooSlow for lack of time."""


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

    async def serve(place: DashboardTarget, seconds: float) -> dict[str, Any]:
        address = dashboard_url.format(cluster=place.cluster, namespace=place.namespace)
        return await RayDashboard(session, address, place.token, seconds).details()

    async def starts(place: DashboardTarget, seconds: float) -> dict[str, Any]:
        address = proxy_url.format(cluster=place.cluster, namespace=place.namespace)
        return await ask_starts(session, address, seconds)

    return Asks(serve, starts)


def through_api_server(cluster: Cluster) -> Asks:
    """Ask through the API server's service proxy, from wherever a kubeconfig leads."""

    async def serve(place: DashboardTarget, seconds: float) -> dict[str, Any]:
        # The API server keeps the header Authorization for itself; Ray reads this one as well.
        headers = {"X-Ray-Authorization": f"Bearer {place.token}"}
        service = f"{place.cluster}-head-svc:dashboard"
        answer = await cluster.get_through_service(
            place.namespace, service, APPLICATIONS, headers, seconds=seconds
        )
        return answer.object()

    async def starts(place: DashboardTarget, seconds: float) -> dict[str, Any]:
        service = f"{place.cluster}-head-svc:serve"
        answer = await cluster.get_through_service(place.namespace, service, STARTS, {}, seconds=seconds)
        return answer.object()

    return Asks(serve, starts)


@dataclass(frozen=True)
class Memory:
    """What is remembered of a head.

    Attributes:
        reading: what it told last; None before that.
        running_since: when each replica was first seen running.
    """

    reading: Reading | None = None
    running_since: Mapping[str, datetime] = field(default_factory=dict)


class ServeReader:
    """Reads heads.

    Args:
        asks: how.
        clock: the time, UTC.
    """

    def __init__(self, asks: Asks, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._asks = asks
        self.clock = clock

    async def read(self, place: DashboardTarget, before: Memory, seconds: float) -> Memory:
        """Poll a head once.

        Args:
            place: where it is.
            before: what it told before.
            seconds: until Serve's state must be there; the reports of starts have one second more.

        Raises:
            SdServiceError: there was no answer, or none that can be read.
        """
        state = read(await self._asks.serve(place, seconds))
        now = self.clock()
        state = carry_over(state, before.reading.state if before.reading else None)
        running = {name: now for name, each in state.models.items() if each.running}
        since = running | {name: at for name, at in before.running_since.items() if name in running}
        known = before.reading.starts if before.reading else {}
        young = {name for name, at in since.items() if now - at < _ASKED_FOR}
        starts = await self._starts(place, state, known, young)
        return Memory(Reading(state, now, starts=starts), since)

    async def _starts(
        self,
        place: DashboardTarget,
        state: ServeState,
        known: Mapping[str, StartReport],
        young: AbstractSet[str],
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
            told = read_starts(await self._asks.starts(place, _STARTS_SECONDS))
        except SdServiceError as error:
            logger.debug("%s/%s: %s", place.namespace, place.cluster, error)
            return kept
        return kept | {name: told[name] for name in asked if name in told}
