# SPDX-License-Identifier: Apache-2.0
"""Bytes that no HTTP library sends, to the HTTP server of a Serve proxy, without Ray behind it.

`tests/runtime/test_raw_http.py` sends some of them through a real proxy.
"""

import asyncio
import json
import random
import socket
from collections import Counter

import pytest
from ray.serve._private.http_util import configure_http_middlewares, start_asgi_http_server
from ray.serve.config import HTTPOptions
from uvicorn import config as uvicorn_config

from sd_runtime.serving import http1

HOST = b"Host: test\r\n"
CLOSE = b"Connection: close\r\n"
JSON = b"Content-Type: application/json\r\n"
BODY = b'{"prompt": "a red circle", "seed": 7}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
POST = b"POST /v1/images/generations HTTP/1.1\r\n" + HOST
HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YQ==\r\n"
)


class Answer:
    """The first answer on a connection, as it came."""

    def __init__(self, data):
        head, _, self.content = data.partition(b"\r\n\r\n")
        line, *headers = head.decode("latin-1").split("\r\n")
        self.status = int(line.split(" ")[1])
        self.headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in headers)}
        self.content = self.content[: int(self.headers.get("content-length", len(self.content)))]

    @property
    def error(self):
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.content)["error"]


@pytest.fixture
async def server(app, monkeypatch):
    """Serve's own server with the middlewares of our proxies, around the application; `port` is where it listens."""
    monkeypatch.setitem(uvicorn_config.HTTP_PROTOCOLS, "auto", uvicorn_config.HTTP_PROTOCOLS["auto"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    options = HTTPOptions(host="127.0.0.1", port=number, keep_alive_timeout_s=5)
    with monkeypatch.context() as patched:
        patched.setattr(
            "ray.serve._private.http_util.RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH",
            "sd_runtime.proxy.middlewares",
        )
        options.__dict__["middlewares"] = []
        options = configure_http_middlewares(options)
    loop = asyncio.get_running_loop()
    task, server = await start_asgi_http_server(app, options, event_loop=loop)
    while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
        await asyncio.sleep(0.01)
    server.port = number
    yield server
    server.should_exit = True
    await task


@pytest.fixture
def port(server):
    return server.port


@pytest.fixture
def send(port):
    """Send bytes on one connection, and read until the server closes it."""

    async def exchange(*parts):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()

    return exchange


@pytest.mark.parametrize("offer", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
async def test_an_offer_to_upgrade_is_ignored(send, backend, offer):
    """JDK's HttpClient offers h2c with every request on plain HTTP; RFC 9110, 7.8."""
    closing = HEALTH + CLOSE + b"\r\n"
    data = await send(POST + JSON + LENGTH + offer + b"\r\n" + BODY, closing)
    assert Answer(data).status == 200
    assert data.count(b"HTTP/1.1 200 OK") == 2, "the connection serves on"
    assert backend.requests[0].prompt == "a red circle"


@pytest.mark.parametrize(
    ("sent", "status", "code", "says"),
    [
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "invalid_request", "illegal request line"),
        (b"GET /healthz\r\n\r\n", 400, "invalid_request", "illegal request line"),
        ("GET /imagine?prompt=größe HTTP/1.1\r\n\r\n".encode(), 400, "invalid_request", "percent-encode"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "invalid_request", "Host"),
        (HEALTH + HOST + b"\r\n", 400, "invalid_request", "multiple Host"),
        (b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", 400, "invalid_request", "illegal header line"),
        (POST + LENGTH + b"Content-Length: 3\r\n\r\n", 400, "invalid_request", "Content-Length"),
        (POST + b"Content-Length: -3\r\n\r\n", 400, "invalid_request", "Content-Length"),
        (POST + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n", 400, "invalid_request", "must have only one"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "not_implemented", "chunked"),
        (POST + JSON + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", 400, "invalid_request", "chunk"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "wrong_http_version", "got 2.0: must be 1.0 or 1.1"),
        (b"GET healthz HTTP/1.1\r\n" + HOST + b"\r\n", 400, "invalid_request", "starts with /"),
        (b"CONNECT a.b:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "invalid_request", "got 'a.b:443'"),
        (b"TRACE /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 405, "wrong_method", "TRACE"),
        (b"GET /" + b"a" * http1.HEAD_BYTES, 414, "target_too_long", "262144"),
        (HEALTH + b"a: " + b"b" * http1.HEAD_BYTES, 431, "headers_too_large", "262144"),
    ],
    ids=lambda given: repr(given)[:40],
)
async def test_what_is_no_request_is_refused_in_json(send, sent, status, code, says):
    answer = Answer(await send(sent))
    assert answer.status == status
    error = answer.error
    assert (error["code"], error["param"]) == (code, None)
    assert says in error["message"]
    assert "größe" not in error["message"]
    assert error["request_id"] == answer.headers["x-request-id"] != "unknown"
    assert answer.headers["connection"] == "close"


async def test_a_refusal_arrives_although_the_client_goes_on_sending(send):
    answer = Answer(await send(b"GET /", *[b"a" * 65536] * 20))
    assert answer.status == 414


async def test_a_long_prompt_fits_into_a_query(send, backend):
    query = b"prompt=" + b"%F0%9F%94%B4" * 1900
    answer = Answer(await send(b"GET /imagine?" + query + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"))
    assert answer.status == 200
    assert backend.requests[0].prompt == "🔴" * 1900


async def test_the_target_may_be_a_whole_url(send, backend):
    """RFC 9112, 3.2.2: as a client sends it that takes the server for a proxy."""
    sent = b"GET http://other/imagine?prompt=a HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
    assert Answer(await send(sent)).status == 200
    assert backend.requests[0].prompt == "a"


async def test_options_for_the_server_as_a_whole(send):
    answer = Answer(await send(b"OPTIONS * HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"))
    assert (answer.status, answer.content) == (204, b"")
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("path", [b"/healthz", b"/imagine?prompt=a", b"/v1/models", b"/docs"])
async def test_head_has_headers_and_no_content(send, path):
    request = b" %s HTTP/1.1\r\n" % path + HOST + CLOSE + b"\r\n"
    head, get = [Answer(await send(method + request)) for method in (b"HEAD", b"GET")]
    assert (head.status, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers.get("content-length", "") in {"", get.headers["content-length"]}


async def test_headers_that_come_too_slowly_are_408(send, monkeypatch):
    monkeypatch.setattr(http1, "HEAD_SECONDS", 0.2)
    answer = Answer(await send(HEALTH))
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert await send(b"") == b"", "who says nothing hears nothing"


async def test_slow_headers_are_408_on_a_connection_in_use_as_well(send, monkeypatch):
    monkeypatch.setattr(http1, "HEAD_SECONDS", 0.2)
    data = await send(HEALTH + b"\r\n", HEALTH)
    first, _, second = data.partition(b'{"status":"alive"}')
    assert (Answer(first).status, Answer(second).status) == (200, 408)


async def test_a_body_that_never_ends_is_408(send, configure):
    configure(limits={"timeout_seconds": 1})
    answer = Answer(await send(POST + JSON + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"))
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert answer.error["message"] == "the body was not complete within 1 s (limits.timeoutSeconds)"
    assert answer.headers["connection"] == "close"


async def test_a_body_that_drips_is_408(port, configure):
    configure(limits={"timeout_seconds": 1})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST + JSON + b"Content-Length: 100000\r\n\r\n")
    reading = asyncio.create_task(reader.read())
    while not reading.done():
        writer.write(b" ")
        await asyncio.wait([reading], timeout=0.05)
    writer.close()
    assert Answer(reading.result()).status == 408


async def test_a_body_that_is_answered_has_to_end_soon(send, monkeypatch):
    """The route takes no body, and nobody reads one; without an end the connection would stay for ever."""
    monkeypatch.setattr(http1, "REST_SECONDS", 0.2)
    answer = Answer(await send(b"GET /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n"))
    assert answer.status == 200


async def test_a_large_body_gets_its_413_and_the_connection_serves_on(send):
    large = b"Content-Length: 3000000\r\n\r\n"
    data = await send(POST + JSON + large, b" " * 3000000, HEALTH + CLOSE + b"\r\n")
    assert Answer(data).status == 413
    assert b'{"status":"alive"}' in data


async def test_an_answer_waits_for_no_acknowledgement(server):
    """Serve's sockets have Nagle's algorithm on, which adds 40 ms to an answer in two writes."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    while not server.server_state.connections:  # noqa: ASYNC110 - uvicorn tells nobody
        await asyncio.sleep(0.01)
    (connection,) = server.server_state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()


async def test_requests_may_come_before_the_answers(send):
    data = await send((HEALTH + b"\r\n") * 2 + HEALTH + CLOSE + b"\r\n")
    assert data.count(b'{"status":"alive"}') == 3


@pytest.mark.parametrize("given", [b"a b", b"\xff", b"x" * 200], ids=["blank", "not ASCII", "long"])
async def test_an_id_that_is_not_plain_is_replaced(send, given):
    answer = Answer(
        await send(b"GET /nope HTTP/1.1\r\n" + HOST + CLOSE + b"x-request-id: " + given + b"\r\n\r\n")
    )
    assert answer.status == 404
    assert answer.error["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-request-id"].encode() != given


async def test_a_plain_id_is_kept_and_is_in_the_body(send):
    answer = Answer(await send(b"GET /nope HTTP/1.1\r\n" + HOST + CLOSE + b"x-request-id: mine-1\r\n\r\n"))
    assert answer.error["request_id"] == answer.headers["x-request-id"] == "mine-1"


def spoilt(chance):
    """A request with a few bytes changed, doubled, lost or inserted."""
    whole = bytearray(
        chance.choice([POST + JSON + CLOSE + LENGTH + b"\r\n" + BODY, HEALTH + CLOSE + b"\r\n"])
    )
    for _ in range(chance.randrange(1, 4)):
        place, width = chance.randrange(len(whole)), chance.randrange(3)
        whole[place : place + width] = chance.choice(
            [b"", chance.randbytes(2), whole[place : place + 9], b"\r\n"]
        )
    return bytes(whole)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_bytes_come_the_answer_is_http_or_the_connection_ends(
    send, configure, monkeypatch, seed
):
    monkeypatch.setattr(http1, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(http1, "REST_SECONDS", 0.3)
    configure(limits={"timeout_seconds": 1})
    chance = random.Random(seed)
    sent = [spoilt(chance) for _ in range(100)]
    seen = Counter()
    for each, data in zip(sent, await asyncio.gather(*map(send, sent)), strict=True):
        if not data:
            continue
        answer = Answer(data)
        seen[answer.status] += 1
        if answer.status >= 400 and not each.startswith(b"HEAD"):
            assert answer.error["request_id"] == answer.headers["x-request-id"], each
    assert seen[400] > 10
    assert set(seen) <= {200, 204, 400, 404, 405, 406, 408, 413, 415, 501, 505}, seen
