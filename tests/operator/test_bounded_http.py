# SPDX-License-Identifier: Apache-2.0
"""Every way in which a pod can misbehave, on a real connection: no answer, within bounds, with a reason."""

import asyncio
import time
import tracemalloc
from contextlib import suppress

import pytest

from sd_operator import bounded_http
from sd_operator.bounded_http import connections, request
from sd_operator.errors import RayTooSlow, RayUnavailable
from sd_operator.ray.dashboard import RayDashboard, get_json, starts
from sd_operator.ray.readiness_probe import directly
from sd_testkit.generators.hostile import MISBEHAVIOURS, serving

TOKEN = "secret" * 10
SECONDS = 0.7
SAYS = {
    "list for object": "Ray's answer is not a JSON object but a list",
    "number": "Ray's answer is not a JSON object but a number",
    "string": "Ray's answer is not a JSON object but a string",
    "null": "Ray's answer is not a JSON object but null",
    "nothing": "Ray's answer is empty",
    "truncated JSON": "Ray's answer is incomplete",
    "HTML": "Ray's answer is not JSON but HTML or XML",
    "no UTF-8": "Ray's answer is not UTF-8",
    "half a surrogate pair": "applications.imagine.deployments is a list, not an object",
    "NaN": "Ray's answer has NaN",
    "Infinity": "Ray's answer has -Infinity",
    "a number beyond all": "Ray's answer has a number that is too large",
    "a number of many digits": "Ray's answer has a number that is too large",
    "deep nesting": "Ray's answer has more than 100000 values",
    "less deep nesting": "Ray's answer has more than 64 levels",
    "many values": "Ray's answer has more than 100000 values",
    "applications a list": "in Ray's answer applications is a list, not an object",
    "application a number": "in Ray's answer applications.imagine is a number, not an object",
    "status an object": "in Ray's answer applications.imagine.status is an object, not a string",
    "replicas a string": "applications.imagine.deployments.model.replicas is a string, not a list",
    "target a huge number": "model.target_num_replicas is not a count from 0 to 100000",
    "target a string": "model.target_num_replicas is a string, not a count",
    "many replicas": "has 20000 entries; the maximum is 5000",
    "a large config": "the configuration is larger than any that the operator applies",
    "a gigabyte": "Ray's answer is larger than 4 MiB",
    "an endless body": "Ray's answer is larger than 4 MiB",
    "a byte a second": f"no answer from Ray within {SECONDS} s",
    "silence": f"no answer from Ray within {SECONDS} s",
    "half a header": f"no answer from Ray within {SECONDS} s",
    "closed at once": "the connection was closed before an answer",
    "closed in the middle": "the connection was closed before the end",
    "no HTTP": "Ray's answer is not HTTP",
    "compressed": "Ray's answer is compressed",
    "redirect": "Ray answers 302",
    "redirect to itself": "Ray answers 307",
    "a refusal": "Ray answers 500: go away",
    "an endless refusal": "Ray answers 500: no no",
}


@pytest.mark.parametrize("what", MISBEHAVIOURS)
async def test_whatever_a_pod_answers_is_no_answer_within_bounds(what):
    tracemalloc.start()
    try:
        async with serving(lambda: MISBEHAVIOURS[what]) as port, connections(SECONDS) as session:
            began = time.monotonic()
            with pytest.raises(RayUnavailable) as raised:
                await RayDashboard(session, f"http://127.0.0.1:{port}", TOKEN, SECONDS).application()
            took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    words = str(raised.value)
    assert SAYS.get(what, "Ray") in words
    assert TOKEN not in words
    assert len(words) <= 300
    assert words.isprintable()
    assert took < SECONDS + 20, "the machine may be busy"
    assert peak < 60e6


@pytest.mark.parametrize("what", MISBEHAVIOURS)
async def test_starts_and_readiness_are_read_within_bounds_too(what):
    async with serving(lambda: MISBEHAVIOURS[what]) as port, connections(SECONDS) as session:
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(30):
            with suppress(RayUnavailable):
                await starts(session, url, SECONDS)
            with suppress(RayTooSlow):
                await directly(session, lambda *_: url)("team", "imagine", SECONDS)
            await get_json(url, SECONDS)


async def test_what_a_refusal_repeats_of_the_token_is_not_quoted(http_server):
    url, _ = http_server(lambda headers: (500, f"you sent {headers['Authorization']}".encode()))
    async with connections(5) as session:
        with pytest.raises(RayUnavailable, match=r"you sent Bearer \*\*\*$"):
            await RayDashboard(session, url, TOKEN, 5).details()


async def test_no_redirect_is_followed_and_no_cookie_kept(http_server):
    elsewhere, asked = http_server(lambda _: (200, b"{}"))
    seen = []

    async def answer():
        yield (
            b"HTTP/1.1 302 Found\r\nSet-Cookie: a=b; Path=/\r\nLocation: "
            + elsewhere.encode()
            + b"\r\nContent-Length: 0\r\n\r\n"
        )

    async with serving(lambda: answer) as port, connections(5) as session:
        for _ in range(2):
            found = await request(session, "GET", f"http://127.0.0.1:{port}/", headers={}, seconds=5)
            seen.append(found.status)
        assert len(session.cookie_jar) == 0
    assert seen == [302, 302]
    assert asked == []


async def test_a_body_of_the_largest_size_is_read(http_server, monkeypatch):
    monkeypatch.setattr(bounded_http, "MOST_BYTES", 4)
    url, _ = http_server(lambda _: (200, b" " * 2**20))
    async with connections(5) as session:
        found = await request(session, "GET", url, headers={}, seconds=5, most=2**20)
        assert len(found.body) == 2**20
        with pytest.raises(RayUnavailable, match="larger than"):
            await request(session, "GET", url, headers={}, seconds=5, most=2**20 - 1)
