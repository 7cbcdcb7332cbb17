# SPDX-License-Identifier: Apache-2.0
"""Which of several operators writes: the one that holds the Lease.

A Lease keeps two of us from doing the same work; it is not what makes two writers safe. That is server-side apply and
the uid in every delete: a request that was sent just before the Lease was lost may still arrive.

Time is measured by this process alone, from when it saw the Lease change, so that clocks which differ do no harm. The
holder stops writing well before another may take over:

    renews every 3 s     writes until 10 s after the last renewal     others take over after 15 s
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from sd_operator.errors import LeadershipLost, SdServiceError
from sd_operator.json_types import Json
from sd_operator.kube import LEASE, Cluster

logger = logging.getLogger(__name__)

NAME = "sd-operator"
DURATION_SECONDS = 15
REQUEST_SECONDS = 5.0
_WRITE_SECONDS = 10.0
_RENEW_SECONDS = 3.0
_RETRY_SECONDS = 2.0
_GIVE_UP_SECONDS = 600.0
_MANAGER = "sd-operator"


class Leadership(Protocol):
    """The right to write."""

    def held(self) -> bool:
        """Whether we may write now."""

    def is_known(self) -> bool:
        """Whether the API server has told who holds it."""

    def attempt_age_seconds(self) -> float:
        """Seconds since the API server last told who holds it."""

    async def acquire(self) -> None:
        """Wait until it is ours."""

    async def keep(self) -> None:
        """Keep it until cancelled.

        Raises:
            LeadershipLost: somebody else has it, or nobody could tell for ten minutes.
        """

    async def release(self) -> None:
        """Give it up, so that another need not wait."""


class Alone:
    """Leadership where there is one operator and no Lease."""

    def held(self) -> bool:
        """Return True."""
        return True

    def is_known(self) -> bool:
        """Return True."""
        return True

    def attempt_age_seconds(self) -> float:
        """Return 0."""
        return 0.0

    async def acquire(self) -> None:
        """Return at once."""

    async def keep(self) -> None:
        """Wait to be cancelled."""
        await asyncio.Event().wait()

    async def release(self) -> None:
        """Do nothing."""


class Lease:
    """Leadership by a Lease object in the operator's namespace."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Hold nothing yet.

        Args:
            cluster: with a request timeout well below `_WRITE_SECONDS`.
            namespace: where the Lease is.
            identity: who we are. A container that is started anew in the same pod has the same, and goes on at once.
            clock: seconds that only ever grow.
            now: the time that is written for people to read.
        """
        self._cluster = cluster
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._now = now
        self._held_until = float("-inf")
        self._renewed_at = float("-inf")
        self._looked_at = clock()
        self._has_looked = False
        self._live: Json | None = None
        self._others_held_it = False
        self._changed_at = clock()
        self._said = ""

    def held(self) -> bool:
        """Whether we may write: we renewed it less than ten seconds ago."""
        return self._clock() < self._held_until

    def is_known(self) -> bool:
        """Whether the API server has told who holds it."""
        return self._has_looked

    def attempt_age_seconds(self) -> float:
        """Seconds since the API server last told who holds it."""
        return self._clock() - self._looked_at

    async def acquire(self) -> None:
        """Wait until the Lease is given up, absent for as long as one lasts or from the beginning, ours, or unchanged for as long as it says; then take it."""
        while True:
            try:
                if await self._take():
                    logger.info("holding the Lease %s/%s as %s", self._namespace, NAME, self._identity)
                    return
            except SdServiceError as error:
                self._say(str(error))
            await asyncio.sleep(_RETRY_SECONDS)

    async def keep(self) -> None:
        """Renew it until cancelled.

        Raises:
            LeadershipLost: somebody else holds it, or it could not be renewed for ten minutes.
        """
        while True:
            await asyncio.sleep(_RENEW_SECONDS if self.held() else _RETRY_SECONDS)
            try:
                await self._renew()
            except LeadershipLost:
                self._held_until = float("-inf")
                raise
            except SdServiceError as error:
                self._say(f"not renewed: {error}")
                if self._clock() - self._renewed_at > _GIVE_UP_SECONDS:
                    raise LeadershipLost("the Lease could not be renewed for ten minutes") from error

    async def release(self) -> None:
        """Give it up where it is ours; who waits for it takes it at once. A failure is no harm: it expires."""
        if self._live is None or not self.held():
            return
        self._held_until = float("-inf")
        try:
            await self._cluster.replace(self._body(self._live, holder="", duration=1), _MANAGER)
        except SdServiceError as error:
            logger.warning("the Lease is not given up: %s", error)

    async def _take(self) -> bool:
        asked = self._clock()
        live = await self._look()
        if not self._is_free(live):
            self._say(
                f"standing by: {_holder(live) if live else 'who held the Lease that is gone'} may write"
            )
            return False
        return await self._write(live, asked)

    async def _renew(self) -> None:
        asked = self._clock()
        if self._live is not None and await self._write(self._live, asked):
            self._looked_at = asked
            return
        live = await self._look()  # it was edited or deleted under our hands
        if live is not None and _holder(live) != self._identity:
            raise LeadershipLost(f"{_holder(live) or 'nobody'} holds the Lease now")
        await self._write(live, asked)

    async def _look(self) -> Json | None:
        live = await self._cluster.get(LEASE, self._namespace, NAME)
        self._looked_at = self._clock()
        self._has_looked = True
        if (live and _version(live)) != (self._live and _version(self._live)):
            self._changed_at = self._looked_at
        self._live = live
        self._others_held_it |= live is not None and _holder(live) not in {"", self._identity}
        return live

    def _is_free(self, live: Json | None) -> bool:
        if live is None:
            # Who held it writes on until it wants to renew it.
            return not self._others_held_it or self._clock() - self._changed_at > DURATION_SECONDS
        holder = _holder(live)
        lasts = (live.get("spec") or {}).get("leaseDurationSeconds") or DURATION_SECONDS
        return not holder or holder == self._identity or self._clock() - self._changed_at > lasts

    async def _write(self, live: Json | None, asked: float) -> bool:
        """Write that it is ours over what was read; False where another was faster.

        It counts from when it was asked for, not from the answer.
        """
        body = self._body(live)
        write = self._cluster.create if live is None else self._cluster.replace
        written = await write(body, _MANAGER)
        if written is None:
            return False
        self._live, self._renewed_at = written, asked
        self._held_until = asked + _WRITE_SECONDS
        self._said = ""
        return True

    def _body(self, live: Json | None, holder: str | None = None, duration: int = DURATION_SECONDS) -> Json:
        """The Lease as we write it; with the version it was read at, so that one of two who write fails."""
        before = (live or {}).get("spec") or {}
        holder = self._identity if holder is None else holder
        stays = before.get("holderIdentity") == holder
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata = {"name": NAME, "namespace": self._namespace}
        if live:
            metadata["resourceVersion"] = _version(live)
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": duration,
                "acquireTime": (before.get("acquireTime") or now) if stays else now,
                "renewTime": now,
                "leaseTransitions": _transitions(live, stays=stays),
            },
        }

    def _say(self, message: str) -> None:
        """Log what is new; the same every two seconds helps nobody."""
        if message != self._said:
            logger.warning("Lease %s/%s: %s", self._namespace, NAME, message)
            self._said = message


def _transitions(live: Json | None, *, stays: bool) -> int:
    """How often the Lease has changed hands: 0 for a new one, and where somebody has cleared the field."""
    counted = ((live or {}).get("spec") or {}).get("leaseTransitions")
    if counted is None:
        return 0 if live is None or stays else 1
    return max(0, int(counted)) + (0 if stays else 1)


def _holder(live: Json) -> str:
    return str((live.get("spec") or {}).get("holderIdentity") or "")


def _version(live: Json) -> str:
    return str(live["metadata"]["resourceVersion"])
