# SPDX-License-Identifier: Apache-2.0
"""HTTP methods by RFC 9110: HEAD on every path with GET, OPTIONS on every path, and a complete `Allow` header."""

from collections.abc import Sequence

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_KNOWN = ("GET", "POST", "PUT", "PATCH", "DELETE")
_WRONG_METHOD = 405
_HEAD = "sd.head"


def wants_headers_only(request: Request) -> bool:
    """Whether a GET handler serves a HEAD request, for which it need not generate an image."""
    return _HEAD in request.scope


class Methods:
    """ASGI middleware around the router that adds HEAD and OPTIONS and corrects `Allow`."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request according to its method."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and (allowed := self._allowed(scope)):
            await Response(status_code=204, headers={"allow": allowed})(scope, receive, send)
        elif scope["method"] == "HEAD" and "GET" in self._allowed(scope):
            scope["method"], scope[_HEAD] = "GET", True
            await self._app(scope, receive, _without_content(send))
        else:
            await self._app(scope, receive, self._with_allow(scope, send))

    def _allowed(self, scope: Scope) -> str:
        """The value of `Allow` for a path; empty if the path does not exist."""
        found = [method for method in _KNOWN if self._takes(scope, method)]
        if not found:
            return ""
        return ", ".join([*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"])

    def _takes(self, scope: Scope, method: str) -> bool:
        candidate = {**scope, "method": method}
        return any(route.matches(candidate)[0] is Match.FULL for route in self._routes)

    def _with_allow(self, scope: Scope, send: Send) -> Send:
        """Correct the `Allow` header of a 405. The router lists only the methods of the first route with the path."""

        async def corrected(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == _WRONG_METHOD:
                MutableHeaders(scope=message)["allow"] = self._allowed(scope)
            await send(message)

        return corrected


def _without_content(send: Send) -> Send:
    async def emptied(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return emptied
