# SPDX-License-Identifier: Apache-2.0
"""The health endpoints: they report whether this process makes progress, not only whether it answers.

/readyz fails until the API server has answered once, so that an installation without access to its API server is visible.
/healthz fails if the progress stops. A leader is judged by its last complete LIST, a standby by its last read of the Lease.
An unavailable API server makes neither of them unhealthy for ten minutes, because a restart would not help.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from sd_operator.controller.leader_election import Leadership
from sd_operator.controller.resync import GIVE_UP_SECONDS, Resync

_GRACE_SECONDS = 60.0
Report = tuple[bool, dict[str, object]]


@dataclass(frozen=True)
class Health:
    """The health of this process.

    Attributes:
        leadership: whether this process leads, and when it last read the Lease.
        resync: when the last LIST was complete.
        resync_seconds: regular seconds between two LISTs.
    """

    leadership: Leadership
    resync: Resync
    resync_seconds: float

    def is_ready(self) -> bool:
        """Whether the API server has answered everything that this process needs to work, or to stand by."""
        return self.resync.is_complete() if self.leadership.held() else self.leadership.is_known()

    def report(self) -> Report:
        """Whether this process is alive, and a JSON object with the role and the age that decides it."""
        if self.leadership.held():
            age, longest = self.resync.age_seconds(), self.resync_seconds + GIVE_UP_SECONDS + _GRACE_SECONDS
            return age < longest, {"role": "leader", "lastResyncSeconds": round(age, 1)}
        age, longest = self.leadership.attempt_age_seconds(), GIVE_UP_SECONDS + _GRACE_SECONDS
        return age < longest, {"role": "standby", "lastLookAtLeaseSeconds": round(age, 1)}


@asynccontextmanager
async def serving(
    port: int, report: Callable[[], Report], is_ready: Callable[[], bool]
) -> AsyncIterator[None]:
    """Answer GET /healthz and /readyz: 200 or 503 with a JSON object.

    Args:
        port: the port; 0: do not serve.
        report: returns whether the process is alive, and the object.
        is_ready: returns whether the process can work or stand by.
    """
    if not port:
        yield
        return

    async def healthz(_: web.Request) -> web.Response:
        alive, details = report()
        return web.json_response(details, status=200 if alive else 503)

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response(report()[1], status=200 if is_ready() else 503)

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield
    finally:
        await runner.cleanup()
