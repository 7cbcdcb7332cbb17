# SPDX-License-Identifier: Apache-2.0
"""What a request must be before Serve's proxy sees it: HTTP/1.x, for a path, under one id, without Serve's own switches."""

import uuid
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sd_runtime.api.errors import Unavailable, plain_id, problem

ID = "x-request-id"

# Serve obeys these, whoever sends them: another time limit, work that nobody waits for, another choice of the replica.
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
        """Hand a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = plain_id(Headers(scope=scope)) or str(uuid.uuid4())
        scope["headers"] = _cleaned(scope["headers"], request_id)
        _take_absolute_form(scope)
        answer = _own_answer(scope, request_id)
        await (answer or self._app)(scope, receive, send)


def _cleaned(headers: RawHeaders, request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers with one id, and without what is for Serve alone; Serve takes underscores for hyphens."""
    dropped = {ID.encode(), *_SWITCHES}
    kept = [(name, value) for name, value in headers if name.lower().replace(b"_", b"-") not in dropped]
    return [*kept, (ID.encode(), request_id.encode())]


def _take_absolute_form(scope: Scope) -> None:
    """`GET http://host/path`, as a client sends it that takes the server for a proxy (RFC 9112, 3.2.2)."""
    target = scope["raw_path"].decode("ascii")
    if target.lower().startswith(("http://", "https://")):
        path = urlsplit(target).path or "/"
        scope["path"], scope["raw_path"] = unquote(path), path.encode("ascii")


def _own_answer(scope: Scope, request_id: str) -> Response | None:
    """The answer to what no application could answer."""
    if (scope["method"], scope["path"]) == ("OPTIONS", "*"):
        return Response(status_code=204, headers={"allow": _ALLOWED, ID: request_id})
    refusal = _refusal(scope)
    if refusal is None:
        return None
    told = problem(refusal, request_id)
    # What follows on this connection may be no HTTP at all.
    return JSONResponse(told.body, told.status, {**told.headers, ID: request_id, "connection": "close"})


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
