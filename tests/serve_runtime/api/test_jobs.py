# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from sd_runtime.api.image_backend import QueueFull
from sd_runtime.errors import GenerationFailed, InvalidRequest

ROUTE = "/v1/jobs"
BODY = {"prompt": "a red circle", "seed": 7, "n": 2}


@pytest.fixture
def begin(http):
    """Begin a job; its URL and its first answer."""

    async def post(**body):
        answer = await http.post(ROUTE, json=BODY | body)
        assert answer.status_code == 202, answer.text
        return answer.headers["location"], answer.json()

    return post


@pytest.fixture
def until(http):
    """Wait for a state of a job."""

    async def wait(url, state):
        async with asyncio.timeout(5):
            while (body := (await http.get(url)).json())["state"] != state:  # noqa: ASYNC110 - as clients do
                await asyncio.sleep(0.01)
        return body

    return wait


async def test_a_job_tells_how_far_it_is_and_then_where_its_pictures_are(http, backend, begin, until, opened):
    backend.gate.clear()
    url, first = await begin()
    assert url == f"{ROUTE}/{first['id']}"
    assert (first["state"], first["step"], first["steps"], first["queue_position"]) == ("running", 1, 8, 0)
    assert first["eta_seconds"] >= 0
    assert (first["images"], first["expires_in_seconds"]) == ([], None)
    waiting = await http.get(f"{url}/images/1")
    assert (waiting.status_code, waiting.json()["error"]["code"]) == (409, "not_finished")
    backend.gate.set()
    last = await until(url, "succeeded")
    assert (last["step"], last["eta_seconds"], last["error"]) == (8, 0, None)
    assert [(each["index"], each["seed"]) for each in last["images"]] == [(0, 7), (1, 8)]
    assert 0 < last["expires_in_seconds"] <= 900
    picture = await http.get(last["images"][1]["url"])
    assert (picture.headers["content-type"], picture.headers["x-seed"]) == ("image/png", "8")
    assert opened(picture.content).size == (64, 64)
    assert len(picture.content) == last["images"][1]["bytes"]


async def test_delete_stops_the_work(http, backend, metrics, begin):
    backend.gate.clear()
    url, _ = await begin()
    answer = await http.delete(url)
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert (backend.cancelled, metrics.left) == (1, 1)
    assert (await http.get(url)).json()["state"] == "cancelled"
    assert (await http.get(f"{url}/images/0")).status_code == 404


async def test_delete_forgets_what_is_finished(http, begin, until):
    url, _ = await begin()
    await until(url, "succeeded")
    assert (await http.delete(url)).json()["state"] == "succeeded"
    for path in (url, f"{url}/images/0"):
        assert (await http.get(path)).status_code == 404
    assert (await http.delete(url)).status_code == 404


async def test_a_failure_is_told_as_an_error_answer_tells_it(backend, begin, until):
    backend.gate.clear()
    backend.late_error = GenerationFailed("the image contains NaN values")
    url, _ = await begin()
    backend.gate.set()
    error = (await until(url, "failed"))["error"]
    assert (error["message"], error["code"]) == ("the image contains NaN values", "generation_failed")


@pytest.mark.parametrize(
    ("error", "status"), [(QueueFull(), 429), (InvalidRequest("size: too large", "size"), 400)], ids=str
)
async def test_what_is_refused_at_once_is_no_job(http, app, backend, error, status):
    backend.error = error
    answer = await http.post(ROUTE, json=BODY)
    assert answer.status_code == status
    assert "location" not in answer.headers
    assert app.state.jobs._jobs == {}


@pytest.mark.parametrize(
    ("body", "param"),
    [({"stream": True}, "stream"), ({"n": 5}, "n"), ({"prompt": ""}, "prompt"), ({"typo": 1}, "typo")],
    ids=str,
)
async def test_a_job_is_checked_as_every_request(http, backend, body, param):
    answer = await http.post(ROUTE, json=BODY | body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert backend.requests == []


@pytest.mark.parametrize("path", ["/nope", "/nope/images/0"])
async def test_an_unknown_job_is_404(http, path):
    answer = await http.get(ROUTE + path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_picture_has_a_number(http, begin, until):
    url, _ = await begin()
    await until(url, "succeeded")
    assert (await http.get(f"{url}/images/2")).status_code == 404
    assert (await http.get(f"{url}/images/x")).status_code == 400


async def test_a_job_says_what_has_no_effect_before_it_is_done(http, backend, begin, until, warned):
    backend.gate.clear()
    url, first = await begin()
    assert first["warnings"] == [warned]
    backend.gate.set()
    assert (await until(url, "succeeded"))["warnings"] == [warned]
    assert (await http.get(f"{url}/images/0")).headers["x-warnings"] == "negative_prompt_ignored"
