# SPDX-License-Identifier: Apache-2.0
"""/healthz for the liveness probe: whether this process still gets anywhere, not only whether it answers.

A leader is judged by its last complete LIST, one that stands by by its last look at the Lease. An API server that is away
makes neither unhealthy for ten minutes: restarting us would not bring it back.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from sd_operator.lease import Leadership
from sd_operator.resync import GIVE_UP_SECONDS, Resync

_GRACE_SECONDS = 60.0


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

    def report(self) -> tuple[bool, dict[str, object]]:
        """Whether we are alive, and by what that is judged."""
        if self.leadership.held():
            age, longest = self.resync.age_seconds(), self.resync_seconds + GIVE_UP_SECONDS + _GRACE_SECONDS
            return age < longest, {"role": "leader", "lastResyncSeconds": round(age, 1)}
        age, longest = self.leadership.attempt_age_seconds(), GIVE_UP_SECONDS + _GRACE_SECONDS
        return age < longest, {"role": "standby", "lastLookAtLeaseSeconds": round(age, 1)}


@asynccontextmanager
async def serving(port: int, report: Callable[[], tuple[bool, dict[str, object]]]) -> AsyncIterator[None]:
    """Answer GET /healthz: 200 or 503 with a JSON object.

    Args:
        port: where; 0: nowhere.
        report: whether we are alive, and the object.
    """
    if not port:
        yield
        return

    async def answer(_: web.Request) -> web.Response:
        alive, told = report()
        return web.json_response(told, status=200 if alive else 503)

    application = web.Application()
    application.router.add_get("/healthz", answer)
    runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield
    finally:
        await runner.cleanup()
