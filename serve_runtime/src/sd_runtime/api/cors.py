# SPDX-License-Identifier: Apache-2.0
"""CORS: web pages may call the service from a browser if their origins are in `allowed_origins`.

The protocol is https://fetch.spec.whatwg.org/#http-cors-protocol. A browser hides the response from a page whose origin
is not listed.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sd_runtime.api.service import Service

_ANY = "*"
_EXPOSED = "etag, location, retry-after, server-timing, x-cache, x-request-id, x-seed, x-warnings"
_SENT = "authorization, content-type, if-none-match, x-api-key, x-request-id"
_PREFLIGHT_SECONDS = "600"


class Cors:
    """ASGI middleware that adds CORS headers. The application inside answers a preflight as any OPTIONS request."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request and add the CORS headers for its origin."""
        origins = self._service.live.allowed_origins
        if scope["type"] != "http" or not origins:
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope)
        is_preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in sent

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                _mark(MutableHeaders(scope=message), sent.get("origin"), origins, is_preflight=is_preflight)
            await send(message)

        await self._app(scope, receive, marked)


def _mark(
    headers: MutableHeaders, origin: str | None, origins: tuple[str, ...], *, is_preflight: bool
) -> None:
    headers.add_vary_header("origin")  # caches must not share a response: another origin gets other headers
    if origin is None or not ({origin, _ANY} & set(origins)):
        return
    headers["access-control-allow-origin"] = origin
    headers["access-control-expose-headers"] = _EXPOSED
    if is_preflight:
        headers["access-control-allow-methods"] = headers.get("allow", "")
        headers["access-control-allow-headers"] = _SENT
        headers["access-control-max-age"] = _PREFLIGHT_SECONDS
