# SPDX-License-Identifier: Apache-2.0
"""Polls one head: Serve's state from its dashboard, and the start reports of replicas from its proxy.

Start reports are read while a replica starts. A running replica is read for ten more minutes, or until it has reported its
first picture.
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
_STARTS_SECONDS = 1.0  # start reports are optional, and Serve's state has been read by then


@dataclass(frozen=True)
class DashboardTarget:
    """A dashboard to poll.

    Attributes:
        cluster: name of the RayCluster.
        head_uid: uid of its head pod.
        token: Ray's token.
        ready: whether the head is ready; an answer from before that is not reliable.
    """

    namespace: str
    cluster: str
    head_uid: str
    token: str = field(repr=False)
    ready: bool = True


Ask = Callable[[DashboardTarget, float], Awaitable[dict[str, Any]]]
"""Fetches an answer within a number of seconds; raises RayTooSlow at the deadline, another SdServiceError without answer."""


class Asks(NamedTuple):
    """Both requests to a head: to its dashboard for Serve's state, and to its proxy for the start reports of replicas."""

    serve: Ask
    starts: Ask


def directly(session: Session, dashboard_url: str, proxy_url: str) -> Asks:
    """Requests to the heads themselves, from inside the cluster.

    Args:
        session: the HTTP client.
        dashboard_url: address of a dashboard, with the placeholders `{cluster}` and `{namespace}`.
        proxy_url: address of a head's proxy, with the same placeholders.
    """

    async def serve(target: DashboardTarget, seconds: float) -> dict[str, Any]:
        address = dashboard_url.format(cluster=target.cluster, namespace=target.namespace)
        return await RayDashboard(session, address, target.token, seconds).details()

    async def starts(target: DashboardTarget, seconds: float) -> dict[str, Any]:
        address = proxy_url.format(cluster=target.cluster, namespace=target.namespace)
        return await ask_starts(session, address, seconds)

    return Asks(serve, starts)


def through_api_server(cluster: Cluster) -> Asks:
    """Requests through the API server's service proxy, which work outside the cluster too."""

    async def serve(target: DashboardTarget, seconds: float) -> dict[str, Any]:
        # The API server uses the header Authorization itself; Ray accepts this one too.
        headers = {"X-Ray-Authorization": f"Bearer {target.token}"}
        service = f"{target.cluster}-head-svc:dashboard"
        answer = await cluster.get_through_service(
            target.namespace, service, APPLICATIONS, headers, seconds=seconds
        )
        return answer.object()

    async def starts(target: DashboardTarget, seconds: float) -> dict[str, Any]:
        service = f"{target.cluster}-head-svc:serve"
        answer = await cluster.get_through_service(target.namespace, service, STARTS, {}, seconds=seconds)
        return answer.object()

    return Asks(serve, starts)


@dataclass(frozen=True)
class Memory:
    """The remembered answers of a head.

    Attributes:
        reading: its last reading; None before the first one.
        running_since: when each replica was first seen running.
    """

    reading: Reading | None = None
    running_since: Mapping[str, datetime] = field(default_factory=dict)


class ServeReader:
    """Reads Serve's state and start reports from heads.

    Args:
        asks: the requests to a head.
        clock: the time, UTC.
    """

    def __init__(self, asks: Asks, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._asks = asks
        self.clock = clock

    async def read(self, target: DashboardTarget, before: Memory, seconds: float) -> Memory:
        """Poll a head once.

        Args:
            target: the dashboard.
            before: its remembered answers.
            seconds: deadline for Serve's state; start reports have one second more.

        Raises:
            SdServiceError: there was no answer, or an unreadable one.
        """
        state = read(await self._asks.serve(target, seconds))
        now = self.clock()
        state = carry_over(state, before.reading.state if before.reading else None)
        running = {name: now for name, each in state.models.items() if each.running}
        since = running | {name: at for name, at in before.running_since.items() if name in running}
        known = before.reading.starts if before.reading else {}
        young = {name for name, at in since.items() if now - at < _ASKED_FOR}
        starts = await self._starts(target, state, known, young)
        return Memory(Reading(state, now, starts=starts), since)

    async def _starts(
        self,
        target: DashboardTarget,
        state: ServeState,
        known: Mapping[str, StartReport],
        young: AbstractSet[str],
    ) -> Mapping[str, StartReport]:
        """The start reports of the model's replicas; they are read only if one of them is not complete.

        Args:
            target: the dashboard.
            state: Serve's state, with the current replicas.
            known: their earlier reports.
            young: replicas that have been running for less than ten minutes.
        """
        kept = {name: report for name, report in known.items() if name in state.models}
        open_starts = [name for name, each in state.models.items() if not each.running or name in young]
        if all(name in kept and kept[name].is_complete for name in open_starts):
            return kept
        try:
            found = read_starts(await self._asks.starts(target, _STARTS_SECONDS))
        except SdServiceError as error:
            logger.debug("%s/%s: %s", target.namespace, target.cluster, error)
            return kept
        return kept | {name: found[name] for name in open_starts if name in found}
