# SPDX-License-Identifier: Apache-2.0
"""Limits on the size of a request body and on the time that it takes to arrive.

The longest allowed prompts fit into the size limit. Both limits are checked while the body arrives, since its length
may be unknown and it may never end.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sd_runtime.api.errors import Unavailable
from sd_runtime.api.service import Service

MAX_BODY_BYTES = 1024 * 1024


class BodyLimit:
    """ASGI middleware that limits request bodies. It runs inside the error handlers."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request with a limited body."""
        if scope["type"] == "http":
            receive = _Body(receive, self._service.live.limits.timeout_seconds).receive
        await self._app(scope, receive, send)


class _Body:
    """The body of one request, with its limits.

    Args:
        receive: the ASGI callable that returns the parts of the body.
        seconds: time limit of the whole body, from now on.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._receive = receive
        self._seconds = seconds
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._read = 0
        self._has_ended = False

    async def receive(self) -> Message:
        """The next part of the body, within the time limit. After the last part, the message of the disconnect."""
        if self._has_ended:
            return await self._receive()
        message = await self._in_time()
        self._has_ended = not message.get("more_body", False)
        self._read += len(message.get("body", b""))
        if self._read > MAX_BODY_BYTES:
            raise Unavailable(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        return message

    async def _in_time(self) -> Message:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._receive()
        except TimeoutError as error:
            message = f"the body was not complete within {self._seconds} s (limits.timeoutSeconds)"
            raise Unavailable(408, message, headers={"Connection": "close"}) from error
