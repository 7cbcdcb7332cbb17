# SPDX-License-Identifier: Apache-2.0
"""Methods as RFC 9110 has them: HEAD wherever GET is, OPTIONS everywhere, and `Allow` with all that a path takes."""

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
    """Whether a GET handler answers a HEAD: nothing needs to be drawn for it."""
    return _HEAD in request.scope


class Methods:
    """ASGI middleware around the router."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request by its method."""
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
        """The methods of a path, as `Allow` lists them; empty where there is no such path."""
        found = [method for method in _KNOWN if self._takes(scope, method)]
        if not found:
            return ""
        return ", ".join([*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"])

    def _takes(self, scope: Scope, method: str) -> bool:
        asked = {**scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in self._routes)

    def _with_allow(self, scope: Scope, send: Send) -> Send:
        """The router lists the methods of the first of several routes with the same path."""

        async def corrected(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == _WRONG_METHOD:
                MutableHeaders(scope=message)["allow"] = self._allowed(scope)
            await send(message)

        return corrected


def _without_content(send: Send) -> Send:
    async def emptied(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return emptied
