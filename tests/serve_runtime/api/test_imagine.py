# SPDX-License-Identifier: Apache-2.0
"""`GET /imagine`, with the requests that existing clients of this pattern send."""

import pytest

from sd_runtime.engine.postprocess import encode

SEEDED = {"prompt": "a red circle", "seed": 7}


async def test_the_ui_sends_a_prompt_alone_and_opens_what_comes(http, opened):
    """The Gradio page: GET with `prompt` in the query, the body opened as a picture."""
    answer = await http.get("/imagine", params={"prompt": "a dog on the moon, watercolour"})
    answer.raise_for_status()
    assert opened(answer.content).size == (64, 64)


async def test_the_load_test_repeats_its_query_as_a_body(http):
    """Locust: a fixed prompt, and nothing read but the status."""
    asked = {"prompt": "A beautiful sunset over the ocean"}
    answer = await http.request("GET", "/imagine", params=asked, json=asked)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")


async def test_every_parameter_reaches_the_engine(http, backend):
    query = {"prompt": "a", "img_size": 128, "seed": 3, "steps": 2, "guidance": 1.5, "negative_prompt": "b"}
    assert (await http.get("/imagine", params=query)).status_code == 200
    (request,) = backend.requests
    assert (request.width, request.height, request.seed, request.steps) == (128, 128, 3, 2)
    assert (request.guidance, request.negative_prompt) == (1.5, "b")


async def test_a_seeded_picture_is_not_drawn_for_who_has_it(http, backend):
    first = await http.get("/imagine", params=SEEDED)
    assert first.headers["cache-control"] == "max-age=3600"
    tag = first.headers["etag"]
    assert tag.startswith('W/"'), "the same picture, and not always the same bytes"
    for held in (tag, f'"other", {tag}', f'"a, b",{tag}', tag.removeprefix("W/"), "*"):
        again = await http.get("/imagine", params=SEEDED, headers={"if-none-match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    lines = [("if-none-match", '"other"'), ("if-none-match", tag)]
    assert (await http.get("/imagine", params=SEEDED, headers=lines)).status_code == 304
    assert len(backend.requests) == 1
    for held in ('"other"', tag[:-2] + '"', "W/", '"*"', "*, *"):
        answer = await http.get("/imagine", params=SEEDED, headers={"if-none-match": held})
        assert answer.status_code == 200, held


async def test_the_same_seeded_request_is_the_same_file(http):
    first, second = [await http.get("/imagine", params=SEEDED) for _ in range(2)]
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.content == second.content


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"steps": 2}, {"guidance": 1}, {"prompt": "b"}, {"negative_prompt": "c"}], ids=str
)
async def test_another_request_has_another_tag(http, change):
    tags = [(await http.get("/imagine", params=query)).headers["etag"] for query in (SEEDED, SEEDED | change)]
    assert len(set(tags)) == 2


async def test_new_defaults_are_another_picture(http, configure):
    before = (await http.get("/imagine", params=SEEDED)).headers["etag"]
    configure(defaults={"width": 64, "height": 64, "steps": 9})
    assert (await http.get("/imagine", params=SEEDED)).headers["etag"] != before


async def test_without_a_seed_nothing_is_cached(http):
    answer = await http.get("/imagine", params={"prompt": "a"})
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    assert "x-cache" not in answer.headers
    assert encode.parameters(answer.content)["request_id"] == answer.headers["x-request-id"]


async def test_the_result_cache_answers_the_second_time(http, backend, metrics, configure):
    configure(result_cache={"max_mebibytes": 1})
    answers = [await http.get("/imagine", params=SEEDED) for _ in range(2)]
    assert [each.headers["x-cache"] for each in answers] == ["miss", "hit"]
    assert [each.headers.get("server-timing") for each in answers] == ["draw;dur=1000.0", None]
    assert answers[0].content == answers[1].content
    assert (len(backend.requests), metrics.lookups) == (1, [False, True])
    configure(result_cache={"max_mebibytes": 0})
    assert "x-cache" not in (await http.get("/imagine", params=SEEDED)).headers


async def test_both_routes_share_the_cache(http, backend, configure):
    configure(result_cache={"max_mebibytes": 1})
    await http.get("/imagine", params=SEEDED)
    body = {"prompt": SEEDED["prompt"], "seed": SEEDED["seed"]}
    answer = await http.post("/v1/images/generations", json=body)
    assert answer.headers["x-cache"] == "hit"
    streamed = await http.post("/v1/images/generations", json={**body, "stream": True})
    assert "image_generation.completed" in streamed.text
    assert len(backend.requests) == 1


async def test_what_has_no_effect_is_said_in_the_header(http, warned):
    answer = await http.get("/imagine", params={"prompt": "a", "negative_prompt": "blue", "guidance": 1})
    assert answer.headers["x-warnings"] == warned["code"]
