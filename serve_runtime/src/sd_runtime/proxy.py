# SPDX-License-Identifier: Apache-2.0
"""What Serve's proxies put around the service: Ray calls `middlewares` where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH says so."""

import uuid

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sd_runtime.http_errors import Unavailable, problem

_ID = "x-request-id"
_LOST = Unavailable(503, "the service was lost, or is not there yet; send the request again", retry_after=1)
_NO_ROUTE = 404


def middlewares() -> list[Middleware]:
    """For the HTTP server of each proxy."""
    return [Middleware(LostIngress)]


class LostIngress:
    """Answers in place of an ingress that was lost or is not there yet.

    By themselves the proxies answer a bare 500 without the request's id then, or that there is no such path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_ID)
        request_id = given or str(uuid.uuid4())
        if not given:
            scope["headers"] = [*scope["headers"], (_ID.encode(), request_id.encode())]
        answer = _Answer(send)
        await self._app(scope, receive, answer.send)
        if not answer.has_begun:
            told = problem(_LOST, request_id)
            instead = JSONResponse(told.body, told.status, {**told.headers, _ID: request_id})
            await instead(scope, receive, send)


class _Answer:
    """Hands on what the service answers, and nothing else.

    Attributes:
        has_begun: the service has answered.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_held = False
        self.has_begun = False

    async def send(self, message: Message) -> None:
        """Hand a part of it on."""
        if message["type"] == "http.response.start":
            self._is_held = _knows_no_service(message)
        if not self._is_held:
            self.has_begun = True
            await self._send(message)


def _knows_no_service(message: Message) -> bool:
    """The proxy's own words for a path without an application; ours has all paths, and its errors are JSON."""
    content = Headers(raw=list(message["headers"])).get("content-type", "")
    return message["status"] == _NO_ROUTE and content.startswith("text/plain")
