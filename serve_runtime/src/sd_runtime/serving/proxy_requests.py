# SPDX-License-Identifier: Apache-2.0
"""Checks and changes of requests before Serve's proxy reads them: HTTP version, target, request id and Serve's headers."""

import uuid
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sd_runtime.api.errors import Unavailable, plain_id, problem

ID = "x-request-id"

# Serve obeys these headers from any client. They change the time limit, keep the work of clients that disconnected, or
# choose the replica.
_SWITCHES = {
    b"x-request-timeout-seconds",
    b"x-request-disconnect-disabled",
    b"serve-multiplexed-model-id",
    b"x-session-id",
}
_VERSIONS = {"1.0", "1.1"}
_ALLOWED = "GET, HEAD, POST, DELETE, OPTIONS"
_SHOWN = 80

RawHeaders = Iterable[tuple[bytes, bytes]]


class ProxyRequests:
    """ASGI middleware around Serve's proxy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Clean a request and pass it on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = plain_id(Headers(scope=scope)) or str(uuid.uuid4())
        scope["headers"] = _cleaned(scope["headers"], request_id)
        _take_absolute_form(scope)
        answer = _own_answer(scope, request_id)
        await (answer or self._app)(scope, receive, send)


def _cleaned(headers: RawHeaders, request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers with one request id, and without Serve's own headers. Serve treats underscores as hyphens."""
    dropped = {ID.encode(), *_SWITCHES}
    kept = [(name, value) for name, value in headers if name.lower().replace(b"_", b"-") not in dropped]
    return [*kept, (ID.encode(), request_id.encode())]


def _take_absolute_form(scope: Scope) -> None:
    """Reduce a target in absolute form to its path. Clients send `GET http://host/path` to a proxy (RFC 9112, 3.2.2)."""
    target = scope["raw_path"].decode("ascii")
    if target.lower().startswith(("http://", "https://")):
        path = urlsplit(target).path or "/"
        scope["path"], scope["raw_path"] = unquote(path), path.encode("ascii")


def _own_answer(scope: Scope, request_id: str) -> Response | None:
    """The response to a request that must not reach the application, else None."""
    if (scope["method"], scope["path"]) == ("OPTIONS", "*"):
        return Response(status_code=204, headers={"allow": _ALLOWED, ID: request_id})
    refusal = _refusal(scope)
    if refusal is None:
        return None
    found = problem(refusal, request_id)
    # The connection is closed, since the data after this request may not be HTTP.
    return JSONResponse(found.body, found.status, {**found.headers, ID: request_id, "connection": "close"})


def _refusal(scope: Scope) -> Unavailable | None:
    if scope["http_version"] not in _VERSIONS:
        return Unavailable(505, f"HTTP version: got {scope['http_version']}: must be 1.0 or 1.1")
    if not scope["path"].startswith("/"):
        target = scope["path"][:_SHOWN]
        return Unavailable(400, f"request target: got {target!r}: must be a path that starts with /")
    names = {name for name, _ in scope["headers"]}
    if {b"content-length", b"transfer-encoding"} <= names:
        return Unavailable(400, "got both Content-Length and Transfer-Encoding: a request must have only one")
    return None
