# SPDX-License-Identifier: Apache-2.0
"""Middleware for Serve's HTTP proxies. Ray calls the function that RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names."""

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sd_runtime.api.errors import Unavailable, problem
from sd_runtime.serving import http1
from sd_runtime.serving.proxy_requests import ID, ProxyRequests
from sd_runtime.serving.whole_body import WholeBody

_LOST = Unavailable(
    503, "the service is starting, or it was lost during the request; retry in 1 s", retry_after=1
)
_FULL = Unavailable(429, "all request queues are full; retry in 1 s", retry_after=1)
_LATE = Unavailable(504, "the request exceeded the time limit of Ray Serve's proxy")
# Statuses of the proxy's own plain-text errors. 404 means that no application is running, since ours serves all paths.
_TEXTS = {404: _LOST, 408: _LATE, 429: _FULL, 500: _LOST, 503: _LOST}
_OWN_PATHS = ("/-/healthz", "/-/routes")


def middlewares() -> list[Middleware]:
    """The middleware for the HTTP server of each proxy. It also replaces the HTTP/1.1 protocol of Serve's uvicorn."""
    http1.install()
    return [
        Middleware(WholeBody),
        Middleware(LostIngress),
        Middleware(ProxyRequests),
    ]  # the last one is the outermost


class LostIngress:
    """ASGI middleware that answers with a JSON error when the ingress is lost or has not started yet.

    Without it, Serve's proxies answer with a plain 500 without the request id, or with 404.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer it if the ingress does not."""
        if scope["type"] != "http" or scope["path"] in _OWN_PATHS:
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        failure = await self._failure(scope, receive, answer)
        if failure is not None:
            request_id = Headers(scope=scope)[ID]
            found = problem(failure, request_id)
            headers = {**found.headers, ID: request_id}
            await JSONResponse(found.body, found.status, headers)(scope, receive, send)

    async def _failure(self, scope: Scope, receive: Receive, answer: "_Answer") -> Exception | None:
        """Let the service answer. Return the error to send if it does not answer, else None."""
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:
            if answer.has_begun:
                raise
            return error
        return None if answer.has_begun else answer.instead


class _Answer:
    """A filter for responses: it passes on those of the service and drops the proxy's own plain-text errors.

    Attributes:
        has_begun: whether the service has started its response.
        instead: the error that replaces the proxy's own.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_held = False
        self.has_begun = False
        self.instead = _LOST

    async def send(self, message: Message) -> None:
        """Pass on one message of the response, unless the proxy's own error is being dropped."""
        if message["type"] == "http.response.start":
            self._is_held = _is_text(message) and message["status"] in _TEXTS
            self.instead = _TEXTS.get(message["status"], _LOST)
        if not self._is_held:
            self.has_begun = True
            await self._send(message)


def _is_text(message: Message) -> bool:
    """Whether a response is plain text. Our errors are JSON, so a plain-text error comes from the proxy."""
    return Headers(raw=list(message["headers"])).get("content-type", "").startswith("text/plain")
