# SPDX-License-Identifier: Apache-2.0
"""Jobs, cached images and clients that disconnect, on the real application."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

CLIENTS = 16
SLOW = {"prompt": "a red circle", "size": "256x256", "num_inference_steps": 100, "seed": 1}


def until(http, url, *states):
    deadline = time.monotonic() + 60
    while (body := http.get(url).json())["state"] not in states:
        assert time.monotonic() < deadline, body
        time.sleep(0.1)
    return body


def test_a_job_is_drawn_and_fetched(http):
    answer = http.post("/v1/jobs", json={"prompt": "a red circle", "seed": 5, "n": 2})
    assert answer.status_code == 202
    url = answer.headers["location"]
    body = until(http, url, "succeeded", "failed")
    assert (body["state"], len(body["images"])) == ("succeeded", 2)
    fetched = http.get(body["images"][1]["url"])
    alone = http.get("/imagine", params={"prompt": "a red circle", "seed": 6})
    assert (fetched.headers["x-seed"], alone.headers["x-seed"]) == ("6", "6")
    assert http.delete(url).status_code == 200
    assert http.get(url).status_code == 404


def makes_way(http):
    """Whether a short request is drawn long before what was given up would have been: minutes of work."""
    began = time.monotonic()
    assert http.get("/imagine", params={"prompt": "a", "steps": 2}).status_code == 200
    return time.monotonic() - began < 60


def test_a_cancelled_job_makes_way(http):
    jobs = [http.post("/v1/jobs", json=SLOW | {"n": 4}).headers["location"] for _ in range(CLIENTS)]
    for url in jobs:
        assert http.delete(url).json()["state"] == "cancelled"
    assert makes_way(http)


def leave_unanswered(client):
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/images/generations", json=SLOW | {"n": 4}, timeout=3)


def leave_in_the_middle(client):
    with client.stream("POST", "/v1/images/generations", json=SLOW | {"n": 4, "stream": True}) as answer:
        assert next(answer.iter_lines()).startswith(": step")


@pytest.mark.parametrize("leave", [leave_unanswered, leave_in_the_middle])
def test_a_client_that_leaves_makes_way(http, running, leave):
    with (
        httpx.Client(base_url=running.local.url, timeout=120) as client,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        list(pool.map(lambda _: leave(client), range(CLIENTS)))
    assert makes_way(http)


def test_a_seeded_picture_has_a_tag(http):
    query = {"prompt": "a red circle", "seed": 5}
    first = http.get("/imagine", params=query)
    again = http.get("/imagine", params=query, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["x-request-id"]
