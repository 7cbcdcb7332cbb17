# SPDX-License-Identifier: Apache-2.0
"""Every request gets an id, a log line, a count and a span; none of them ever holds a prompt."""

import asyncio
import logging
import uuid
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sd_runtime.api import errors
from sd_runtime.api.service import Service
from sd_runtime.observability.tracing import Attributes

logger = logging.getLogger(__name__)

_ID = "x-request-id"
_FAILED = 500
_CLIENT_GONE = 499
_UNKNOWN_ROUTE = "other"
_QUIET = {"/healthz", "/readyz", "/startz"}  # probes, every few seconds


class Observed:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request under observation."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = _Seen(scope, send)
        began = self._service.clock()
        try:
            with self._service.tracing.request("request", Headers(scope=scope), seen.told):
                await self._serve(scope, receive, seen)
        finally:
            self._tell(seen, self._service.clock() - began)

    async def _serve(self, scope: Scope, receive: Receive, seen: "_Seen") -> None:
        try:
            await self._app(scope, receive, seen.send)
        except asyncio.CancelledError:
            seen.told["status"] = _CLIENT_GONE
            raise
        finally:
            seen.told["route"] = _route(scope)

    def _tell(self, seen: "_Seen", seconds: float) -> None:
        route, status = str(seen.told["route"]), int(seen.told["status"])
        self._service.metrics.answered(route, status, seconds)
        fields = seen.told | {"seconds": round(seconds, 4)}
        logger.log(logging.DEBUG if route in _QUIET else logging.INFO, "request", extra={"fields": fields})


class _Seen:
    """What is known of one request; gives it an id where no proxy did.

    Attributes:
        told: what log line and span say of it.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._new = errors.plain_id(Headers(scope=scope)) is None
        if self._new:
            kept = [pair for pair in scope["headers"] if pair[0] != _ID.encode()]
            scope["headers"] = [*kept, (_ID.encode(), uuid.uuid4().hex.encode())]
        self._id = errors.request_id(Headers(scope=scope))
        self.told: Attributes = {"request_id": self._id, "method": scope["method"], "status": _FAILED}

    async def send(self, message: Message) -> None:
        """Hand a part of the answer on."""
        if message["type"] == "http.response.start":
            self.told["status"] = message["status"]
            if self._new:  # else the proxy in front puts it on
                MutableHeaders(scope=message)[_ID] = self._id
        await self._send(message)


def _route(scope: Scope) -> str:
    """The template of the route, so that no path of a client becomes a label."""
    with suppress(AttributeError):
        return str(scope["route"].path_format) if "route" in scope else _UNKNOWN_ROUTE
    return _UNKNOWN_ROUTE
