# SPDX-License-Identifier: Apache-2.0
"""A request's body travels to the ingress with its headers, where the proxy has it whole by then.

By itself Serve's ingress asks the proxy for the body, and then for news of the client, with two calls of a Ray actor for each
request. Nothing here needs the news: the proxy cancels the call when the client leaves. A body that takes its time, or
does not fit into one piece, goes Serve's way.
"""

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

from ray.serve._private.common import StreamingHTTPRequest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BODY = "sd.body"
_SOON_SECONDS = 0.05

Messages = Callable[[Any], Awaitable[bytes]]


class WholeBody:
    """ASGI middleware around Serve's proxy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, its body beside its headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        first = asyncio.ensure_future(receive())
        try:
            await asyncio.wait({first}, timeout=_SOON_SECONDS)
            if first.done() and _is_whole(first.result()):
                scope[_BODY] = first.result().get("body", b"")
            await self._app(scope, _Again(first, receive).receive, send)
        finally:
            first.cancel()


class _Again:
    """Gives the first message once more, and then those that follow."""

    def __init__(self, first: asyncio.Future[Message], receive: Receive) -> None:
        self._first: asyncio.Future[Message] | None = first
        self._receive = receive

    async def receive(self) -> Message:
        """The next message."""
        if self._first is None:
            return await self._receive()
        message = await self._first
        self._first = None
        return message


def _is_whole(message: Message) -> bool:
    return message["type"] == "http.request" and not message.get("more_body", False)


_serves_own: Callable[[StreamingHTTPRequest], Messages] = StreamingHTTPRequest.receive_asgi_messages.fget


def install() -> None:
    """Have Serve, in the process of an ingress, read the bodies that came with the headers."""
    StreamingHTTPRequest.receive_asgi_messages = property(_messages)


def _messages(request: StreamingHTTPRequest) -> Messages:
    """Where Serve gets the ASGI messages of a request from."""
    body = request.asgi_scope.pop(_BODY, None)
    return _serves_own(request) if body is None else _Given(body).messages


class _Given:
    """A body that is here; nothing follows it."""

    def __init__(self, body: bytes) -> None:
        self._unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def messages(self, _: Any) -> bytes:
        """The body, pickled as Serve's proxy does it; who asks again waits until the request is over."""
        if not self._unread:
            await asyncio.Event().wait()
        unread, self._unread = self._unread, []
        return pickle.dumps(unread)
