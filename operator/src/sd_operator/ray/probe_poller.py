# SPDX-License-Identifier: Apache-2.0
"""Probes services in the background while Ray does not show whether they serve; passes use the last answer."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sd_operator.naming import Key
from sd_operator.ray.poller import Poller
from sd_operator.ray.readiness_probe import Probe

POLL_SECONDS = 10.0
_AWAITED = timedelta(seconds=10)


class Door(NamedTuple):
    """The Kubernetes Service through which a service is probed."""

    namespace: str
    service: str


@dataclass(eq=False)
class _Asked:
    """A service that is probed.

    Attributes:
        since: start of the probes.
        answers: whether the last probe showed that it can generate; None before the first answer.
    """

    key: Key
    door: Door
    since: datetime
    around: Hashable
    answers: bool | None = None


class ProbePoller:
    """Probes the services that passes name.

    Args:
        probe: probes one service.
        clock: the time, UTC.
        counted: called at the end of each poll, as in the Poller.
    """

    def __init__(
        self,
        probe: Probe,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        counted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._probe = probe
        self._clock = clock
        self._poller: Poller[_Asked] = Poller(self._poll, self._failed, every=POLL_SECONDS, counted=counted)
        self._asked: dict[Key, _Asked] = {}
        self._changed: Callable[[Key], None] = lambda _: None

    def seen(self, key: Key, door: Door, around: Hashable) -> bool | None:
        """Whether the last probe showed that a service can generate; None while the first answer is pending.

        The service is probed periodically from now on.

        Args:
            key: the resource.
            door: the Service to probe.
            around: a value of the other known facts; if it has changed, the service is probed at once.
        """
        asked, now = self._asked.get(key), self._clock()
        if asked is None or asked.door != door:
            self.forget(key)
            asked = self._asked[key] = _Asked(key, door, now, around)
            self._poller.watch(asked, settles=True)
        elif asked.around != around:
            asked.around = around
            self._poller.ask(asked)
        if asked.answers is None and now - asked.since > _AWAITED:
            return False
        return asked.answers

    async def ask(self, key: Key, door: Door) -> bool:
        """Probe a service once and wait for its answer, a few seconds at most."""
        asked = _Asked(key, door, self._clock(), None)
        await self._poller.now(asked)
        return bool(asked.answers)

    def forget(self, key: Key) -> None:
        """Stop probing a service."""
        asked = self._asked.pop(key, None)
        if asked is not None:
            self._poller.forget(asked)

    async def run(self, changed: Callable[[Key], None]) -> None:
        """Poll until cancelled; call `changed` with each resource whose answer changed."""
        self._changed = changed
        await self._poller.run()

    async def _poll(self, asked: _Asked, seconds: float) -> None:
        self._take(asked, answers=await self._probe(*asked.door, seconds))

    def _failed(self, asked: _Asked, _: str) -> None:
        self._take(asked, answers=False)

    def _take(self, asked: _Asked, *, answers: bool) -> None:
        before, asked.answers = asked.answers, answers
        if before is not answers and self._asked.get(asked.key) is asked:
            self._changed(asked.key)
