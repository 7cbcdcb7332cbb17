# SPDX-License-Identifier: Apache-2.0
"""A request id, a log record, metrics and a span for every request. None of them contains a prompt."""

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
    """ASGI middleware that logs, counts and traces requests. It is the outermost middleware."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, then log and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = _Seen(scope, send)
        began = self._service.clock()
        try:
            with self._service.tracing.request("request", Headers(scope=scope), seen.fields):
                await self._serve(scope, receive, seen)
        finally:
            self._report(seen, self._service.clock() - began)

    async def _serve(self, scope: Scope, receive: Receive, seen: "_Seen") -> None:
        try:
            await self._app(scope, receive, seen.send)
        except asyncio.CancelledError:
            seen.fields["status"] = _CLIENT_GONE
            raise
        finally:
            seen.fields["route"] = _route(scope)

    def _report(self, seen: "_Seen", seconds: float) -> None:
        route, status = str(seen.fields["route"]), int(seen.fields["status"])
        self._service.metrics.answered(route, status, seconds)
        fields = seen.fields | {"seconds": round(seconds, 4)}
        logger.log(logging.DEBUG if route in _QUIET else logging.INFO, "request", extra={"fields": fields})


class _Seen:
    """The record of one request. It adds a request id if no proxy has set one.

    Attributes:
        fields: the fields of the log record and the span.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._new = errors.plain_id(Headers(scope=scope)) is None
        if self._new:
            kept = [pair for pair in scope["headers"] if pair[0] != _ID.encode()]
            scope["headers"] = [*kept, (_ID.encode(), uuid.uuid4().hex.encode())]
        self._id = errors.request_id(Headers(scope=scope))
        self.fields: Attributes = {"request_id": self._id, "method": scope["method"], "status": _FAILED}

    async def send(self, message: Message) -> None:
        """Pass on one message of the response."""
        if message["type"] == "http.response.start":
            self.fields["status"] = message["status"]
            if self._new:  # otherwise the proxy in front adds the header
                MutableHeaders(scope=message)[_ID] = self._id
        await self._send(message)


def _route(scope: Scope) -> str:
    """The template of the route. A path that a client chose never becomes a metric label."""
    with suppress(AttributeError):
        return str(scope["route"].path_format) if "route" in scope else _UNKNOWN_ROUTE
    return _UNKNOWN_ROUTE
