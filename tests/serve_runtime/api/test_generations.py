# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest

from sd_runtime.api.errors import Unavailable
from sd_runtime.api.image_backend import QueueFull
from sd_runtime.engine.postprocess import encode
from sd_runtime.engine.schedule_options import ScheduleOptions
from sd_runtime.errors import GenerationFailed, InvalidRequest

ROUTE = "/v1/images/generations"


async def test_pictures_come_inline_with_their_seeds(http, opened):
    answer = await http.post(ROUTE, json={"prompt": "a red circle", "n": 2, "seed": 7, "size": "128x64"})
    assert answer.status_code == 200
    assert answer.headers["x-seed"] == "7"
    assert answer.headers["server-timing"].startswith("draw;dur=1")
    body = answer.json()
    assert [each["seed"] for each in body["data"]] == [7, 8]
    assert (body["size"], body["output_format"]) == ("128x64", "png")
    assert opened(base64.b64decode(body["data"][0]["b64_json"])).format == "PNG"


async def test_every_extra_reaches_the_engine(http, backend):
    body = {
        "prompt": "a red circle",
        "negative_prompt": "blue",
        "num_inference_steps": 3,
        "guidance_scale": 2,
        "seed": 5,
        "lora": ["oil", {"name": "ink", "strength": 0.5}],
        "scheduler": "DDIM",
        "prompt_syntax": "weighted",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "guidance_rescale": 0.5,
        "clip_skip": 1,
        "output_format": "webp",
        "output_compression": 40,
    }
    assert (await http.post(ROUTE, json=body, headers={"x-request-id": "mine"})).status_code == 200
    (request,) = backend.requests
    assert (request.negative_prompt, request.steps, request.guidance, request.seed) == ("blue", 3, 2.0, 5)
    assert (request.loras, request.scheduler, request.id) == (("oil", "ink"), "DDIM", "mine")
    assert (request.output.format, request.output.compression) == ("webp", 40)
    assert request.prompt_syntax == "weighted"
    assert request.schedule == ScheduleOptions(None, "trailing", rescale_betas_zero_snr=True)
    assert (request.guidance_rescale, request.clip_skip) == (0.5, 1)
    assert request.lora_strengths == (("ink", 0.5),)


async def test_one_lora_may_be_a_name(http, backend):
    await http.post(ROUTE, json={"prompt": "a", "lora": "ink"})
    assert backend.requests[0].loras == ("ink",)


async def test_fields_of_openai_without_effect_are_taken(http):
    body = {"prompt": "a", "quality": "hd", "background": "auto", "moderation": "low", "style": "vivid"}
    body |= {"user": "u", "safety_identifier": "s", "n": None, "size": None, "stream": False}
    assert (await http.post(ROUTE, json=body)).status_code == 200


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/png", "PNG"),
        ("image/jpeg", "JPEG"),
        ("image/webp;q=0.9, application/json;q=0.1", "WEBP"),
        ("image/*", "PNG"),
    ],
)
async def test_accept_asks_for_the_file_itself(http, opened, accept, kind):
    answer = await http.post(ROUTE, json={"prompt": "a", "seed": 3}, headers={"accept": accept})
    assert answer.headers["content-type"] == f"image/{kind.lower()}"
    assert opened(answer.content).format == kind
    assert answer.headers["x-seed"] == "3"
    assert encode.parameters(answer.content)["seed"] == 3


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, image/png", ""])
async def test_who_takes_anything_gets_json(http, accept):
    answer = await http.post(ROUTE, json={"prompt": "a"}, headers={"accept": accept})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"n": 2}, "n", "got 2: must be 1 if Accept requests an image file"),
        ({"output_format": "jpeg"}, "output_format", "got 'jpeg': Accept requests image/png"),
    ],
)
async def test_a_file_is_one_picture_of_the_named_format(http, backend, body, param, says):
    answer = await http.post(ROUTE, json={"prompt": "a", **body}, headers={"accept": "image/png"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert says in answer.json()["error"]["message"]
    assert backend.requests == []


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"n": 5}, "n", "got 5: must be from 1 to 4"),
        ({"n": 10**400}, "n", "(401 digits): must be from 1 to 4"),
        ({"size": "64x100"}, "size", "got 100: must be a multiple of 8 from 64 to 1024"),
        ({"seed": 2**53}, "seed", "less than or equal to 9007199254740991"),
        ({"seed": 2**53 - 1, "n": 2}, "seed", "seed + n - 1 must be at most 9007199254740991"),
        ({"lora": "gouache"}, "lora", "got 'gouache': must be one of ink, oil"),
        ({"lora": ["ink", "ink"]}, "lora", "got a name twice"),
        ({"lora": [5]}, "lora", "got [5]: must be a name, or an object with name and strength"),
        (
            {"lora": {"name": "ink", "strength": 5}},
            "lora.strength",
            "got 5: Input should be less than or equal to 4",
        ),
        ({"sigmas": "linear"}, "sigmas", "'karras', 'exponential' or 'beta'"),
        ({"timestep_spacing": "even"}, "timestep_spacing", "'leading', 'trailing' or 'linspace'"),
        ({"guidance_rescale": 1.5}, "guidance_rescale", "less than or equal to 1"),
        ({"clip_skip": -1}, "clip_skip", "greater than or equal to 0"),
        ({"seed": -2}, "seed", "greater than or equal to -1"),
        ({"scheduler": "PNDM", "sigmas": "beta"}, "sigmas", "the scheduler PNDM has no such option"),
        ({"prompt": "(a:99)", "prompt_syntax": "weighted"}, "prompt", "got a weight of 99"),
        ({"scheduler": "Eular"}, "scheduler", "got \"Eular\": Input should be 'Euler'"),
        ({"output_format": "gif"}, "output_format", "'png', 'jpeg' or 'webp'"),
        ({"output_compression": 101}, "output_compression", "less than or equal to 100"),
        ({"partial_images": 4, "stream": True}, "partial_images", "less than or equal to 3"),
        ({"background": "transparent"}, "background", "'auto' or 'opaque'"),
        ({"response_format": "url"}, "response_format", "'b64_json'"),
        ({"model": "dall-e-3"}, "model", "must be 'bundled://shapes' or absent"),
        ({"steps": 4}, "steps", "unknown field"),
        ({"guidance_scale": 51}, "guidance_scale", "must be from 0 to 50"),
    ],
    ids=str,
)
async def test_what_breaks_a_rule_is_400_with_field_value_and_rule(http, backend, body, param, says):
    answer = await http.post(ROUTE, json={"prompt": "a", **body})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert says in error["message"]
    assert backend.requests == []


async def test_an_unknown_query_parameter_is_refused(http):
    answer = await http.post(f"{ROUTE}?seed=5", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "seed")


async def test_a_large_body_is_413_told_or_not(http):
    content = b'{"prompt": "' + b"x" * 1024 * 1024 + b'"}'
    headers = {"content-type": "application/json"}

    async def chunks():
        yield content

    for sent in (content, chunks()):
        answer = await http.post(ROUTE, content=sent, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000], ids=["[", "{", "9"])
async def test_json_that_no_reader_likes_is_400(http, content):
    answer = await http.post(ROUTE, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (QueueFull(), 429, "rate_limit_error"),
        (Unavailable(504, "not done within 1 s"), 504, "server_error"),
        (Unavailable(503, "the replica was lost", 1), 503, "server_error"),
        (GenerationFailed("the image contains NaN values"), 500, "server_error"),
        (InvalidRequest("width: got 72: not for this model", "size"), 400, "invalid_request_error"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_the_engine_says_has_its_status(http, backend, error, status, kind, stream):
    backend.error = error
    answer = await http.post(ROUTE, json={"prompt": "a", "stream": stream})
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in {429, 503})
    backend.error = None
    assert (await http.post(ROUTE, json={"prompt": "a"})).status_code == 200


def events(text):
    """(name, data) of every event; comments are skipped, as clients do."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block and not block.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


async def test_a_stream_has_previews_and_then_the_picture(http, opened):
    body = {"prompt": "a", "stream": True, "partial_images": 2, "output_format": "jpeg", "seed": 9}
    answer = await http.post(ROUTE, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert ": step 1 of 4" in answer.text
    told = events(answer.text)
    assert [name for name, _ in told] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [data["partial_image_index"] for _, data in told[:2]] == [0, 1]
    last = told[-1][1]
    assert {"type", "b64_json", "created_at", "size", "quality", "background", "usage"} <= set(last)
    assert (last["output_format"], last["seed"]) == ("jpeg", 9)
    assert opened(base64.b64decode(last["b64_json"])).format == "JPEG"


async def test_an_error_in_a_stream_is_its_last_event(http, backend):
    backend.late_error = GenerationFailed("the image contains NaN values")
    answer = await http.post(ROUTE, json={"prompt": "a", "stream": True})
    assert answer.status_code == 200
    ((name, data),) = events(answer.text)
    assert (name, data["error"]["message"]) == ("error", "the image contains NaN values")


async def test_what_has_no_effect_is_said_in_body_header_and_events(http, warned):
    answer = await http.post(ROUTE, json={"prompt": "a", "n": 2})
    assert answer.json()["warnings"] == [warned]
    assert answer.headers["x-warnings"] == "negative_prompt_ignored"
    file = await http.post(ROUTE, json={"prompt": "a"}, headers={"accept": "image/png"})
    assert file.headers["x-warnings"] == "negative_prompt_ignored"
    stream = await http.post(ROUTE, json={"prompt": "a", "stream": True, "partial_images": 1})
    told = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: ")]
    assert [each["warnings"] for each in told] == [[warned], [warned]]


async def test_without_warnings_the_list_is_empty_and_the_header_absent(http):
    answer = await http.post(ROUTE, json={"prompt": "a"})
    assert answer.json()["warnings"] == []
    assert "x-warnings" not in answer.headers


async def test_warnings_are_kept_with_the_cached_pictures(http, configure, warned):
    configure(result_cache={"max_mebibytes": 1})
    for state in ("miss", "hit"):
        answer = await http.post(ROUTE, json={"prompt": "a", "seed": 7})
        assert (answer.headers["x-cache"], answer.json()["warnings"]) == (state, [warned])
