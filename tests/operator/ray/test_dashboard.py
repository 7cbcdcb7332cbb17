# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from sd_operator.errors import RayUnavailable
from sd_operator.ray.dashboard import connect, connections
from sd_operator.ray.serve_reader import DashboardTarget, directly
from sd_testkit.generators.hostile import serving

ANSWER = {"applications": {"imagine": {"status": "RUNNING"}}}
TOKEN = "t" * 64


@pytest.fixture
def ray(http_server):
    """A dashboard that wants Ray's token; gives its address and the paths it was asked for."""

    def answer(headers):
        allowed = headers["Authorization"] == f"Bearer {TOKEN}"
        return (200, json.dumps(ANSWER).encode()) if allowed else (401, b"Unauthorized")

    return http_server(answer)


async def test_state_of_the_application(ray):
    async with connect(ray[0], TOKEN) as dashboard:
        assert (await dashboard.application()).status == "RUNNING"


async def test_a_refusal_is_quoted(ray):
    async with connect(ray[0], "wrong") as dashboard:
        with pytest.raises(RayUnavailable, match="Ray answers 401: Unauthorized"):
            await dashboard.application()


async def test_why_ray_refuses_a_config_is_told_line_by_line():
    words = "Traceback\n  line 1\nValueError: x"

    async def refused():
        yield f"HTTP/1.1 400 No\r\nContent-Length: {len(words)}\r\n\r\n{words}".encode()

    async with serving(lambda: refused) as port, connect(f"http://127.0.0.1:{port}", TOKEN, 5) as dashboard:
        with pytest.raises(RayUnavailable) as raised:
            await dashboard.apply({})
    assert str(raised.value) == f"Ray answers 400: {words}"


async def test_no_answer():
    async with connect("http://127.0.0.1:9", TOKEN, timeout_seconds=5) as dashboard:
        with pytest.raises(RayUnavailable, match="no answer from Ray"):
            await dashboard.application()


async def test_heads_are_asked_at_the_addresses_of_their_cluster(ray):
    place = DashboardTarget("team", "imagine-abcde", "head-1", TOKEN)
    async with connections(5) as session:
        url = ray[0] + "/{namespace}/{cluster}"
        asks = directly(session, url, f"{url}/proxy")
        assert await asks.serve(place, 5) == ANSWER
        with pytest.raises(RayUnavailable, match="401"):
            await asks.starts(place, 5)  # Ray's token is for the dashboard alone
    assert ray[1] == ["/team/imagine-abcde/api/serve/applications/", "/team/imagine-abcde/proxy/startz"]
