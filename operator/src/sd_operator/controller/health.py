# SPDX-License-Identifier: Apache-2.0
"""What probes are told: whether this process gets anywhere, not only whether it answers.

/readyz asks whether it ever did, so that an installation that cannot reach its API server shows; /healthz whether it still does.
A leader is judged by its last complete LIST, one that stands by by its last look at the Lease. An API server that is away
makes neither unhealthy for ten minutes: restarting us would not bring it back.
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
    """What the probe is told.

    Attributes:
        leadership: whether we lead, and when that was last asked.
        resync: when the last LIST was complete.
        resync_seconds: how often there should be one.
    """

    leadership: Leadership
    resync: Resync
    resync_seconds: float

    def is_ready(self) -> bool:
        """Whether the API server has answered what we have to know before we can work, or stand by."""
        return self.resync.is_complete() if self.leadership.held() else self.leadership.is_known()

    def report(self) -> Report:
        """Whether we are alive, and by what that is judged."""
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
        port: where; 0: nowhere.
        report: whether we are alive, and the object.
        is_ready: whether we can work or stand by.
    """
    if not port:
        yield
        return

    async def healthz(_: web.Request) -> web.Response:
        alive, told = report()
        return web.json_response(told, status=200 if alive else 503)

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
