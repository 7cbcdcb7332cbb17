# SPDX-License-Identifier: Apache-2.0
"""No body larger than the longest prompts can make it; counted while it comes, since its length may not be told."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sd_runtime.http_errors import Unavailable

MAX_BODY_BYTES = 1024 * 1024


class BodyLimit:
    """ASGI middleware inside the error handlers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose body is counted."""
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise Unavailable(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
            return message

        await self._app(scope, counted if scope["type"] == "http" else receive, send)
