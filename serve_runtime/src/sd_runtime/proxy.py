# SPDX-License-Identifier: Apache-2.0
"""What Serve's proxies put around the service: Ray calls `middlewares` where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH says so."""

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sd_runtime.api.errors import Unavailable, problem
from sd_runtime.serving import http1
from sd_runtime.serving.proxy_requests import ID, ProxyRequests

_LOST = Unavailable(
    503, "the service is starting, or the connection to it was lost; retry in 1 s", retry_after=1
)
_FULL = Unavailable(429, "all request queues are full; retry in 1 s", retry_after=1)
_LATE = Unavailable(504, "the request exceeded the time limit of Ray Serve's proxy")
# What Serve's proxy says by itself, in plain text; 404 is its word for a path without an application: ours has all paths.
_TEXTS = {404: _LOST, 408: _LATE, 429: _FULL, 500: _LOST, 503: _LOST}
_OWN_PATHS = ("/-/healthz", "/-/routes")


def middlewares() -> list[Middleware]:
    """For the HTTP server of each proxy, which is Serve's own uvicorn; its HTTP/1.1 becomes ours as well."""
    http1.install()
    return [Middleware(LostIngress), Middleware(ProxyRequests)]  # the last one is the outermost


class LostIngress:
    """Answers in place of an ingress that was lost or is not there yet.

    By themselves the proxies answer a bare 500 without the request's id then, or that there is no such path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or scope["path"] in _OWN_PATHS:
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        failure = await self._failure(scope, receive, answer)
        if failure is not None:
            request_id = Headers(scope=scope)[ID]
            told = problem(failure, request_id)
            await JSONResponse(told.body, told.status, {**told.headers, ID: request_id})(scope, receive, send)

    async def _failure(self, scope: Scope, receive: Receive, answer: "_Answer") -> Exception | None:
        """Let the service answer; what to say if it does not."""
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:
            if answer.has_begun:
                raise
            return error
        return None if answer.has_begun else answer.instead


class _Answer:
    """Hands on what the service answers, and nothing else.

    Attributes:
        has_begun: the service has answered.
        instead: what to say in place of the proxy's own words.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_held = False
        self.has_begun = False
        self.instead = _LOST

    async def send(self, message: Message) -> None:
        """Hand a part of it on."""
        if message["type"] == "http.response.start":
            self._is_held = _is_text(message) and message["status"] in _TEXTS
            self.instead = _TEXTS.get(message["status"], _LOST)
        if not self._is_held:
            self.has_begun = True
            await self._send(message)


def _is_text(message: Message) -> bool:
    """Our errors are JSON, so plain text is the proxy's."""
    return Headers(raw=list(message["headers"])).get("content-type", "").startswith("text/plain")
