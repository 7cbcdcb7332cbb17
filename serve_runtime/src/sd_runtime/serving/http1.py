# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 for Serve's proxies: uvicorn's h11 protocol, with JSON errors and time limits of our own.

uvicorn prefers httptools if it is installed. httptools loses the body of a request that offers an upgrade which uvicorn
does not support, and JDK clients offer `h2c` with every request. A server may ignore the offer (RFC 9110, 7.8).
"""

import asyncio
import json
import socket
import sys
import uuid
from typing import Any

import h11
from uvicorn import config as uvicorn_config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from sd_runtime.api.errors import Unavailable, problem

HEAD_BYTES = 256 * 1024
"""Maximum size of the request line and headers. A percent-encoded prompt of 20,000 characters fits, in any script."""
HEAD_SECONDS = 30.0
"""Time limit for the request line and headers. A new connection that stays silent is closed after it, too."""
REST_SECONDS = 10.0
"""Time limit for the rest of a body whose request is already answered."""

_LINGER_SECONDS = 2.0
_BAD_LINE = "illegal request line"
_ENCODE = "; the request target must be ASCII, so percent-encode all other characters"


def install() -> None:
    """Make `Http1` the protocol of uvicorn in this process. Serve has no option for it and uses uvicorn's default."""
    uvicorn_config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Http1.__name__}"


class Http1(H11Protocol):
    """One HTTP/1.1 connection."""

    def __init__(
        self,
        config: uvicorn_config.Config,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        config.h11_max_incomplete_event_size = HEAD_BYTES
        super().__init__(config, server_state, app_state, _loop)
        self._head_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit for the first request."""
        super().connection_made(transport)
        _send_at_once(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time limits."""
        self._stop_clocks()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read the next data. After a rejected request all further data is discarded."""
        if self._is_refused:
            return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Start the time limit for the rest of a body whose request is answered."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        self._watch()
        if self.conn.their_state is h11.SEND_BODY:
            self._rest_timer = self.loop.call_later(REST_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Reject a request that h11 cannot parse. uvicorn calls this method while it handles h11's error."""
        error = sys.exception()
        status = getattr(error, "error_status_hint", 400)
        self._refuse(*_explained(status, str(error or msg), self.conn.trailing_data[0]))

    def _should_upgrade_to_ws(self) -> bool:
        return False  # no route supports WebSocket, so the offer of an upgrade is ignored

    def _watch(self) -> None:
        """Run the time limit of the headers only while they are incomplete."""
        if self.conn.their_state is not h11.SEND_BODY:
            _cancel(self._rest_timer)
            self._rest_timer = None
        if self.conn.their_state is not h11.IDLE:
            _cancel(self._head_timer)
            self._head_timer = None
        elif self._head_timer is None and self.conn.trailing_data[0]:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._refuse(408, f"the headers were not complete within {HEAD_SECONDS:.0f} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answer instead of the application, and close the connection."""
        self._is_refused = True
        self._stop_clocks()
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.close()  # the response has already started
            return
        for event in _answer(status, message):
            self.transport.write(self.conn.send(event) or b"")
        # Closing a connection with unread bytes resets it, and the client would not receive the response.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _stop_clocks(self) -> None:
        _cancel(self._head_timer)
        _cancel(self._rest_timer)
        self._head_timer = self._rest_timer = None


def _send_at_once(transport: asyncio.Transport) -> None:
    """Turn Nagle's algorithm off. With it, the second write of each response waits 40 ms for an acknowledgement.

    asyncio turns it off only for sockets that were created with IPPROTO_TCP, and Serve creates its sockets without it.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _explained(status: int, message: str, unread: bytes) -> tuple[int, str]:
    """The status and message for an error of h11. For 431 they depend on the part that is too long."""
    if status == 431:  # noqa: PLR2004
        if b"\n" not in unread:
            return 414, f"the request line is longer than {HEAD_BYTES} bytes"
        return 431, f"the request line and the headers together are longer than {HEAD_BYTES} bytes"
    rule = message.partition(": bytearray(")[0]  # h11 quotes the data, which may contain a prompt
    hint = _ENCODE if rule == _BAD_LINE else ""
    return status, f"the request is not valid HTTP/1.1: {rule}{hint}"


def _answer(status: int, message: str) -> tuple[h11.Response, h11.Data, h11.EndOfMessage]:
    request_id = str(uuid.uuid4())
    body = json.dumps(problem(Unavailable(status, message), request_id).body).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": request_id,
        "connection": "close",
    }
    response = h11.Response(status_code=status, headers=list(headers.items()), reason=STATUS_PHRASES[status])
    return response, h11.Data(data=body), h11.EndOfMessage()
