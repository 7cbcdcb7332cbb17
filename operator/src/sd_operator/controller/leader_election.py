# SPDX-License-Identifier: Apache-2.0
"""Leader election: only the operator that holds the Lease writes.

The Lease keeps two operators from doing the same work, but it does not make two writers safe: a request that was sent just
before the Lease was lost may still arrive. Server-side apply and the uid in every delete make such a request safe.

Each process measures time by its own clock, from when it saw the Lease change, so different clocks do no harm. The holder
stops writing well before another operator may take over:

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
        """Whether this process may write now."""

    def is_known(self) -> bool:
        """Whether the API server has reported the holder."""

    def attempt_age_seconds(self) -> float:
        """Seconds since the API server last reported the holder."""

    async def acquire(self) -> None:
        """Wait until this process leads."""

    async def keep(self) -> None:
        """Keep the leadership until cancelled.

        Raises:
            LeadershipLost: another operator has it, or it could not be renewed for ten minutes.
        """

    async def release(self) -> None:
        """Release the leadership, so that another operator need not wait."""


class Alone:
    """Leadership of a single operator, without a Lease."""

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
        """Create the leadership without holding the Lease.

        Args:
            cluster: a client with a request timeout well below `_WRITE_SECONDS`.
            namespace: namespace of the Lease.
            identity: identity of this operator. A restarted container of the same pod has the same and continues at once.
            clock: monotonic seconds.
            now: the time to write into the Lease, for people.
        """
        self._cluster = cluster
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._now = now
        self._held_until = float("-inf")
        self._renewed_at = float("-inf")
        self._read_at = clock()
        self._has_read = False
        self._live: Json | None = None
        self._others_held_it = False
        self._changed_at = clock()
        self._logged = ""

    def held(self) -> bool:
        """Whether this process may write: it renewed the Lease less than ten seconds ago."""
        return self._clock() < self._held_until

    def is_known(self) -> bool:
        """Whether the API server has reported the holder."""
        return self._has_read

    def attempt_age_seconds(self) -> float:
        """Seconds since the API server last reported the holder."""
        return self._clock() - self._read_at

    async def acquire(self) -> None:
        """Wait until the Lease is released, missing, expired or already ours, then acquire it.

        A Lease that another operator held and that is missing now counts as free after the duration of a Lease.
        """
        while True:
            try:
                if await self._take():
                    logger.info(
                        "this operator holds the Lease %s/%s as %s", self._namespace, NAME, self._identity
                    )
                    return
            except SdServiceError as error:
                self._log(str(error))
            await asyncio.sleep(_RETRY_SECONDS)

    async def keep(self) -> None:
        """Renew the Lease until cancelled.

        Raises:
            LeadershipLost: another operator holds it, or it could not be renewed for ten minutes.
        """
        while True:
            await asyncio.sleep(_RENEW_SECONDS if self.held() else _RETRY_SECONDS)
            try:
                await self._renew()
            except LeadershipLost:
                self._held_until = float("-inf")
                raise
            except SdServiceError as error:
                self._log(f"cannot renew the Lease: {error}")
                if self._clock() - self._renewed_at > _GIVE_UP_SECONDS:
                    raise LeadershipLost("the Lease could not be renewed for ten minutes") from error

    async def release(self) -> None:
        """Release the Lease if it is ours, so that a standby acquires it at once; if this fails, the Lease expires."""
        if self._live is None or not self.held():
            return
        self._held_until = float("-inf")
        try:
            await self._cluster.replace(self._body(self._live, holder="", duration=1), _MANAGER)
        except SdServiceError as error:
            logger.warning("cannot release the Lease, which expires instead: %s", error)

    async def _take(self) -> bool:
        started = self._clock()
        live = await self._read()
        if not self._is_free(live):
            holder = _holder(live) if live else "the former holder of the deleted Lease"
            self._log(f"standing by: {holder} may write")
            return False
        return await self._write(live, started)

    async def _renew(self) -> None:
        started = self._clock()
        if self._live is not None and await self._write(self._live, started):
            self._read_at = started
            return
        live = await self._read()  # another client has edited or deleted the Lease
        if live is not None and _holder(live) != self._identity:
            raise LeadershipLost(f"{_holder(live) or 'nobody'} holds the Lease now")
        await self._write(live, started)

    async def _read(self) -> Json | None:
        live = await self._cluster.get(LEASE, self._namespace, NAME)
        self._read_at = self._clock()
        self._has_read = True
        if (live and _version(live)) != (self._live and _version(self._live)):
            self._changed_at = self._read_at
        self._live = live
        self._others_held_it |= live is not None and _holder(live) not in {"", self._identity}
        return live

    def _is_free(self, live: Json | None) -> bool:
        if live is None:
            # The former holder continues to write until its next renewal.
            return not self._others_held_it or self._clock() - self._changed_at > DURATION_SECONDS
        holder = _holder(live)
        lasts = (live.get("spec") or {}).get("leaseDurationSeconds") or DURATION_SECONDS
        return not holder or holder == self._identity or self._clock() - self._changed_at > lasts

    async def _write(self, live: Json | None, started: float) -> bool:
        """Write this operator as holder over the Lease that was read; False if another client was faster.

        The duration counts from the start of the request, not from the answer.
        """
        body = self._body(live)
        write = self._cluster.create if live is None else self._cluster.replace
        written = await write(body, _MANAGER)
        if written is None:
            return False
        self._live, self._renewed_at = written, started
        self._held_until = started + _WRITE_SECONDS
        self._logged = ""
        return True

    def _body(self, live: Json | None, holder: str | None = None, duration: int = DURATION_SECONDS) -> Json:
        """The Lease to write, with the version that was read, so that one of two concurrent writes fails."""
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

    def _log(self, message: str) -> None:
        """Log a message once; the tries repeat every two seconds."""
        if message != self._logged:
            logger.warning("Lease %s/%s: %s", self._namespace, NAME, message)
            self._logged = message


def _transitions(live: Json | None, *, stays: bool) -> int:
    """How often the Lease has changed its holder: 0 for a new one, and after a person has cleared the field."""
    counted = ((live or {}).get("spec") or {}).get("leaseTransitions")
    if counted is None:
        return 0 if live is None or stays else 1
    return max(0, int(counted)) + (0 if stays else 1)


def _holder(live: Json) -> str:
    return str((live.get("spec") or {}).get("holderIdentity") or "")


def _version(live: Json) -> str:
    return str(live["metadata"]["resourceVersion"])
