# SPDX-License-Identifier: Apache-2.0
"""Sends a request's body to the ingress together with its headers, if the proxy has received the whole body by then.

Serve's ingress makes two calls of a Ray actor for each request: one for the body, and one that reports a client that
leaves. The runtime does not need the second call, because the proxy cancels the request when the client leaves. A slow
body, or a body of more than one message, takes Serve's own way.
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
        """Pass a request on, with its body beside its headers."""
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
    """Returns the first message again, and then the messages that follow."""

    def __init__(self, first: asyncio.Future[Message], receive: Receive) -> None:
        self._first: asyncio.Future[Message] | None = first
        self._receive = receive

    async def receive(self) -> Message:
        """Return the next message."""
        if self._first is None:
            return await self._receive()
        message = await self._first
        self._first = None
        return message


def _is_whole(message: Message) -> bool:
    return message["type"] == "http.request" and not message.get("more_body", False)


_serves_own: Callable[[StreamingHTTPRequest], Messages] = StreamingHTTPRequest.receive_asgi_messages.fget


def install() -> None:
    """Make Serve read the bodies that came with the headers; called in the process of an ingress."""
    StreamingHTTPRequest.receive_asgi_messages = property(_messages)


def _messages(request: StreamingHTTPRequest) -> Messages:
    """Return the function from which Serve receives the ASGI messages of a request."""
    body = request.asgi_scope.pop(_BODY, None)
    return _serves_own(request) if body is None else _Given(body).messages


class _Given:
    """A body that was received whole; no message follows it."""

    def __init__(self, body: bytes) -> None:
        self._unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def messages(self, _: Any) -> bytes:
        """Return the body, pickled as Serve's proxy does it; a second call waits until the request is over."""
        if not self._unread:
            await asyncio.Event().wait()
        unread, self._unread = self._unread, []
        return pickle.dumps(unread)
