# SPDX-License-Identifier: Apache-2.0
"""Bytes that no HTTP library sends, through a real Serve proxy.

`tests/serve_runtime/api/test_raw.py` has all cases.
"""

import json
import socket

import pytest

BODY = b'{"prompt": "a red circle", "num_inference_steps": 2}'
HOST = b"Host: test\r\n"
CLOSE = b"Connection: close\r\n"
JSON = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(BODY)
CHUNKED = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
POST = b"POST /v1/images/generations HTTP/1.1\r\n" + HOST
HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST


@pytest.fixture
def send(running):
    """Send bytes, and read until the proxy closes the connection: status, headers, content."""

    def exchange(*parts):
        with socket.create_connection(("127.0.0.1", running.port), timeout=180) as connection:
            for part in parts:
                connection.sendall(part)
            data = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, content = data.partition(b"\r\n\r\n")
        line, *headers = head.decode("latin-1").split("\r\n")
        found = {name.lower(): value for name, value in (each.split(": ", 1) for each in headers)}
        return int(line.split(" ")[1]), found, content

    return exchange


def test_a_jdk_client_that_offers_h2c_gets_its_picture(send):
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    status, _, content = send(POST + JSON + offer + b"\r\n" + BODY, HEALTH + CLOSE + b"\r\n")
    assert status == 200
    assert b'"b64_json"' in content


def test_an_offer_of_a_websocket_is_ignored(send):
    offer = b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YQ==\r\n"
    status, _, content = send(HEALTH + offer + b"Connection: Upgrade\r\n\r\n", HEALTH + CLOSE + b"\r\n")
    assert (status, content[:18]) == (200, b'{"status":"alive"}')


@pytest.mark.parametrize(
    ("sent", "wanted", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "invalid_request"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        (POST + JSON + b"Transfer-Encoding: chunked\r\n\r\n", 400, "invalid_request"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "not_implemented"),
        (POST + CHUNKED + b"\r\nZZ\r\n", 400, "invalid_request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "wrong_http_version"),
        (b"CONNECT a.b:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "invalid_request"),
        (b"TRACE /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 405, "wrong_method"),
        (b"GET /healthz/ HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 404, "not_found"),
        (b"GET /" + b"a" * 300_000, 414, "target_too_long"),
        (HEALTH + b"a: " + b"b" * 300_000, 431, "headers_too_large"),
        (POST + CLOSE + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY, 415, "unsupported_media_type"),
        (
            POST + CLOSE + CHUNKED + b"\r\n200000\r\n" + b" " * 0x200000 + b"\r\n0\r\n\r\n",
            413,
            "body_too_large",
        ),
    ],
    ids=lambda given: repr(given)[:40],
)
def test_every_refusal_is_json_with_the_id_of_its_request(send, sent, wanted, code):
    status, headers, content = send(sent)
    assert (status, headers["content-type"]) == (wanted, "application/json")
    error = json.loads(content)["error"]
    assert error["code"] == code
    assert error["request_id"] == headers["x-request-id"] != "unknown"


@pytest.mark.parametrize(
    "switch",
    [
        b"x-request-timeout-seconds: 0.001",
        b"X_Request_Timeout_Seconds: 0.001",
        b"serve_multiplexed_model_id: \xff",
    ],
)
def test_a_client_does_not_reach_the_switches_of_serve(send, switch):
    """With them the proxy answers 408 in plain text, or fails."""
    status, headers, content = send(POST + CLOSE + JSON + switch + b"\r\n\r\n" + BODY)
    assert (status, headers["content-type"]) == (200, "application/json"), content[:200]


def test_an_id_in_another_encoding_is_replaced(send):
    status, headers, content = send(b"GET /nope HTTP/1.1\r\n" + HOST + CLOSE + b"x-request-id: \xff\r\n\r\n")
    assert (status, json.loads(content)["error"]["request_id"]) == (404, headers["x-request-id"])


def test_head_and_options_pass_the_proxy(send):
    status, headers, content = send(b"HEAD /readyz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert (status, content) == (200, b"")
    assert int(headers["content-length"]) > 0
    status, headers, content = send(b"OPTIONS /imagine HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert (status, headers["allow"], content) == (204, "GET, HEAD, OPTIONS", b"")
    status, headers, content = send(b"OPTIONS * HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert (status, content) == (204, b"")


def test_a_body_that_never_ends_is_cut_at_the_time_limit(send, running, apply_limits):
    apply_limits(timeout_seconds=2)
    status, headers, content = send(POST + CHUNKED + b"\r\n1\r\n{\r\n")
    assert (status, headers["connection"]) == (408, "close")
    assert (
        json.loads(content)["error"]["message"]
        == "the body was not complete within 2 s (limits.timeoutSeconds)"
    )


def test_rays_own_health_check_stays_rays(send):
    """The one answer that is not ours: docs/api.md names it."""
    status, headers, content = send(b"GET /-/healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert b"success" in content
