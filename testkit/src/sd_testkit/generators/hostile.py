# SPDX-License-Identifier: Apache-2.0
"""A hostile pod that sends malformed responses, down to the bytes.

The cases cover every way in which a tenant's response can be wrong.

Each case has a name. The server closes the connection after the response, unless the open connection is the fault.
"""

import asyncio
import contextlib
import gzip
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

_CHUNK = 64 * 1024
_NEVER = 3600.0

Misbehaviour = Callable[[], AsyncIterator[bytes]]


def _whole(body: bytes, status: str = "200 OK", *headers: str) -> Misbehaviour:
    """Return a response with this body that is otherwise correct."""

    async def answer() -> AsyncIterator[bytes]:
        lines = (
            f"HTTP/1.1 {status}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *headers,
        )
        yield "\r\n".join((*lines, "", "")).encode() + body

    return answer


def _raw(*parts: bytes, ends: bool = True) -> Misbehaviour:
    """Return exactly these bytes, and then close the connection or stay silent."""

    async def answer() -> AsyncIterator[bytes]:
        for part in parts:
            yield part
        if not ends:
            await asyncio.sleep(_NEVER)

    return answer


def _endless(start: bytes, part: bytes, pause: float = 0.0) -> Misbehaviour:
    """Send a start, and then repeat the same data without end."""

    async def answer() -> AsyncIterator[bytes]:
        yield start
        for _ in itertools.count():
            yield part
            if pause:
                await asyncio.sleep(pause)

    return answer


def _json(value: object) -> Misbehaviour:
    return _whole(json.dumps(value).encode())


def _running(**deployments: object) -> Misbehaviour:
    return _json({"applications": {"imagine": {"status": "RUNNING", "deployments": deployments}}})


def _object(body: str) -> Misbehaviour:
    return _whole(f'{{"applications": {body}}}'.encode())


_START = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_GIGABYTE = _START + b"Content-Length: 1000000000\r\n\r\n"
_CHUNKED = _START + b"Transfer-Encoding: chunked\r\n\r\n"

MISBEHAVIOURS: Mapping[str, Misbehaviour] = {
    # The body
    "list for object": _json([1, 2]),
    "number": _json(7),
    "string": _json("applications"),
    "null": _whole(b"null"),
    "nothing": _whole(b""),
    "truncated JSON": _whole(b'{"applications": {"imagine": {"sta'),
    "HTML": _whole(b"<!DOCTYPE html><html><body>It works!</body></html>"),
    "no UTF-8": _whole(b'{"applications": {"imagine": {"status": "\xff\xfe"}}}'),
    "half a surrogate pair": _object(
        '{"imagine": {"status": "\\ud800", "message": "\\udfff", "deployments": []}}'
    ),
    "NaN": _object("NaN"),
    "Infinity": _object('{"imagine": -Infinity}'),
    "a number beyond all": _object('{"imagine": 1e999}'),
    "a number of many digits": _object("9" * 100_000),
    "deep nesting": _object("[" * 100_000 + "]" * 100_000),
    "less deep nesting": _object('{"a":' * 200 + "1" + "}" * 200),
    "many values": _object("[" + "{}," * 400_000 + "0]"),
    # Shapes within
    "applications a list": _json({"applications": [1]}),
    "application a number": _json({"applications": {"imagine": 5}}),
    "status an object": _json({"applications": {"imagine": {"status": {"a": 1}}}}),
    "deployments a list": _json({"applications": {"imagine": {"deployments": [1]}}}),
    "replicas a string": _running(model={"replicas": "many"}),
    "replica a number": _running(model={"replicas": [7]}),
    "state a list": _running(model={"replicas": [{"state": ["RUNNING"]}]}),
    "target a huge number": _running(model={"target_num_replicas": 10**18}),
    "target a string": _running(model={"target_num_replicas": "3"}),
    "config a list": _running(model={"deployment_config": [1]}),
    "many replicas": _running(model={"replicas": [{"state": "RUNNING"}] * 20_000}),
    "many deployments": _running(**{f"d{number}": {} for number in range(1000)}),
    "a large config": _running(model={"deployment_config": {"text": "x" * 10**6}}),
    # Bytes and time
    "a gigabyte": _endless(_GIGABYTE, b" " * _CHUNK),
    "an endless body": _endless(_CHUNKED, b"10000\r\n" + b" " * 0x10000 + b"\r\n"),
    "a byte a second": _endless(_CHUNKED, b"1\r\n \r\n", pause=1.0),
    "silence": _raw(ends=False),
    "half a header": _raw(b"HTTP/1.1 200 OK\r\nContent-Ty", ends=False),
    "endless headers": _endless(_START, b"X-More: " + b"y" * 4000 + b"\r\n"),
    "one long header": _endless(_START + b"X-Long: ", b"y" * _CHUNK),
    "endless interim answers": _endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100),
    "closed at once": _raw(),
    "closed in the middle": _raw(_GIGABYTE + b'{"applications": '),
    "closed in a chunk": _raw(_CHUNKED + b'ffff\r\n{"applications": '),
    # HTTP
    "no HTTP": _raw(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    "two lengths": _raw(_START + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
    "a negative length": _raw(_START + b"Content-Length: -5\r\n\r\n{}"),
    "a bad chunk": _raw(_CHUNKED + b"xyz\r\n{}"),
    "compressed": _whole(gzip.compress(b"{}" + b" " * 10**7), "200 OK", "Content-Encoding: gzip"),
    "redirect": _whole(b"", "302 Found", "Location: http://127.0.0.1:9/secrets"),
    "redirect to itself": _whole(b"", "307 Temporary Redirect", "Location: /api/serve/applications/"),
    "a refusal": _whole(b"go away", "500 Internal Server Error"),
    "an endless refusal": _endless(b"HTTP/1.1 500 No\r\nContent-Length: 1000000000\r\n\r\n", b"no " * 20_000),
    "a refusal in binary": _whole(bytes(range(256)), "500 Internal Server Error"),
}
"""Responses that a hostile pod may send to a request about Serve, by name."""


@asynccontextmanager
async def serving(answer: Callable[[], Misbehaviour], host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Answer every request on a free port, and yield that port.

    Args:
        answer: the response for the next request.
        host: the address to listen on.
    """

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await converse(reader, writer, answer())

    server = await asyncio.start_server(talk, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, misbehaviour: Misbehaviour
) -> None:
    """Read one request and send its response, until the client disconnects."""
    with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        sending = asyncio.ensure_future(_send(writer, misbehaviour))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, misbehaviour: Misbehaviour) -> None:
    async for part in misbehaviour():
        writer.write(part)
        await writer.drain()
