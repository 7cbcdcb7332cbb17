# SPDX-License-Identifier: Apache-2.0
"""Requests that other servers accept silently: methods, types, encodings, and duplicate values in a query or a body."""

import asyncio

import pytest

from sd_runtime.api import content_negotiation
from sd_runtime.api.errors import Unavailable

ROUTE = "/v1/images/generations"
JSON = {"content-type": "application/json"}


@pytest.fixture
def refused(http):
    """Send a request that must be refused; its error."""

    async def send(method, url, *, status=400, **arguments):
        answer = await http.request(method, url, **arguments)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert error["request_id"] == answer.headers["x-request-id"]
        return error

    return send


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/imagine", "GET, HEAD, OPTIONS"),
        (ROUTE, "POST, OPTIONS"),
        ("/v1/jobs/job-1", "GET, DELETE, HEAD, OPTIONS"),
        ("/v1/models/bundled://shapes", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ],
)
@pytest.mark.parametrize("method", ["OPTIONS", "PATCH", "TRACE"])
async def test_allow_lists_all_methods_of_a_path(http, path, allow, method):
    answer = await http.request(method, path)
    assert answer.headers["allow"] == allow
    assert (answer.status_code, bool(answer.content)) == (
        (204, False) if method == "OPTIONS" else (405, True)
    )


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
async def test_no_method_makes_a_path(http, method):
    assert (await http.request(method, "/nope")).status_code == 404


async def test_head_of_a_path_without_get_is_405(http):
    answer = await http.head(ROUTE)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")


async def test_head_draws_nothing_and_has_the_headers_of_get(http, backend):
    query = {"prompt": "a", "seed": 7}
    head = await http.head("/imagine", params=query)
    assert (head.status_code, head.content, backend.requests) == (200, b"", [])
    assert "content-length" not in head.headers
    get = await http.get("/imagine", params=query)
    same = ("content-type", "cache-control", "etag")
    assert [head.headers[name] for name in same] == [get.headers[name] for name in same]
    tag = {"if-none-match": get.headers["etag"]}
    assert (await http.head("/imagine", params=query, headers=tag)).status_code == 304
    assert (await http.head("/imagine", params={"prompt": ""})).status_code == 400


async def test_a_path_is_one_path_alone(http):
    """A redirection would name the address that a gateway hides."""
    answer = await http.get("/imagine/", params={"prompt": "a"})
    assert answer.status_code == 404
    assert "/imagine/" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json, text/plain"},
        {"content-type": "json"},
    ],
    ids=str,
)
@pytest.mark.parametrize("route", [ROUTE, "/v1/jobs"])
async def test_what_is_not_sent_as_json_is_415(refused, backend, route, headers):
    error = await refused("POST", route, status=415, content=b'{"prompt": "a"}', headers=headers)
    assert error["code"] == "unsupported_media_type"
    assert error["message"].startswith("Content-Type: got")
    assert "send JSON" in error["message"] or "JSON is UTF-8" in error["message"]
    assert backend.requests == []


async def test_a_coded_body_is_415(refused):
    headers = {**JSON, "content-encoding": "gzip"}
    error = await refused("POST", ROUTE, status=415, content=b"\x1f\x8b", headers=headers)
    assert error["message"] == "Content-Encoding: got 'gzip': must be absent; send the body uncompressed"


@pytest.mark.parametrize(
    "kind", ["application/json; charset=UTF-8", "Application/JSON", "application/ld+json"]
)
async def test_json_has_many_names(http, kind):
    answer = await http.post(ROUTE, content=b'{"prompt": "a"}', headers={"content-type": kind})
    assert answer.status_code == 200


async def test_a_byte_order_mark_is_skipped(http):
    content = '\ufeff{"prompt": "a"}'.encode()
    assert (await http.post(ROUTE, content=content, headers=JSON)).status_code == 200


@pytest.mark.parametrize(
    ("content", "param", "says"),
    [
        (b'{"prompt": "a", "prompt": "b"}', "prompt", "prompt: got 2 values: must appear once"),
        (b'{"prompt": "a", "seed": NaN}', None, "contains NaN, which is not a number in JSON"),
        (b'{"prompt": "a", "guidance_scale": -Infinity}', None, "contains -Infinity"),
        (
            b'{"prompt": "a", "guidance_scale": 1e999}',
            None,
            "the number 1e999, which is too large for a float",
        ),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", None, "thousands of digits"),
        (b'{"prompt": "a", "\\ud800": 1}', "body", "half of a surrogate pair"),
        (b'{"prompt": "\\ud800"}', "prompt", "half of a surrogate pair"),
        (b'{"prompt": "a", "lora": ["\\udfff"]}', "lora", "half of a surrogate pair"),
        (b'{"prompt": "a", "lora": [{"\\udfff": 1}]}', "body", "half of a surrogate pair"),
        ('{"prompt": "ä"}'.encode("utf-16"), None, "is not UTF-8: byte 0 is invalid"),
        ('{"prompt": "ä"}'.encode("latin-1"), None, "is not UTF-8: byte 12 is invalid"),
        (b'{"prompt": ' + b"[" * 17 + b"]" * 17 + b"}", None, "nested deeper than 16 levels"),
        (b"[" * 100_000, None, "nested deeper than 16 levels"),
        (b'{"prompt": "a"} {}', None, "is not JSON: Extra data"),
        (b'{"prompt": "a",}', None, "is not JSON"),
        (b"{'prompt': 'a'}", None, "is not JSON"),
        (b"", None, "body: is required, but missing"),
        (b"null", None, "body: got a NoneType"),
        (b"[]", None, "body: got"),
    ],
    ids=lambda given: repr(given)[:40],
)
async def test_json_that_readers_understand_differently_is_400(refused, backend, content, param, says):
    error = await refused("POST", ROUTE, content=content, headers=JSON)
    assert says in error["message"]
    assert error["param"] == param
    assert backend.requests == []


@pytest.mark.parametrize(
    ("query", "param", "says"),
    [
        ("prompt=a&prompt=b", "prompt", "prompt: got 2 values: must appear once"),
        ("prompt=a&seed=1&seed=1", "seed", "seed: got 2 values"),
        ("prompt=a%zz", None, "query: got '%zz'"),
        ("prompt=100%", None, "query: got '%'"),
        ("prompt=%FFa", None, "query: is not UTF-8: must be UTF-8, percent-encoded"),
        ("prompt=%ED%A0%80", None, "query: is not UTF-8"),
        ("prompt=a&img_size=%D9%A6%D9%A4", "img_size", "must be a number in ASCII digits"),
        ("prompt=a&img_size=1_28", "img_size", "got '1_28': must be a number in ASCII digits"),
        ("prompt=a&steps=+4", "steps", "got ' 4': must be a number in ASCII digits"),
        ("prompt=a&steps=%2B4", "steps", "got '+4'"),
        ("prompt=a&guidance=%EF%BC%94", "guidance", "must be a number in ASCII digits"),
        ("prompt=a&seed=", "seed", "valid integer"),
    ],
)
async def test_a_query_that_could_mean_something_else_is_400(refused, backend, query, param, says):
    error = await refused("GET", f"/imagine?{query}")
    assert says in error["message"]
    assert error["param"] == param
    assert backend.requests == []


async def test_numbers_in_a_query_may_have_an_exponent(http, backend):
    assert (await http.get("/imagine?prompt=a&guidance=2.5e%2B0")).status_code == 200
    assert backend.requests[0].guidance == 2.5


@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/v1/jobs/job-1"])
async def test_a_bad_query_is_refused_where_there_is_none_as_well(refused, path):
    assert "hexadecimal" in (await refused("GET", f"{path}?%"))["message"]


@pytest.mark.parametrize("index", ["%D9%A0", "+0", "0_0", "%200"])
async def test_a_number_in_a_path_has_ascii_digits(refused, index):
    error = await refused("GET", f"/v1/jobs/job-1/images/{index}")
    assert (error["param"], error["code"]) == ("index", "invalid_value")


@pytest.mark.parametrize(
    "size", ["\u0666\u0664x\u0666\u0664", "64X64", " 64x64", "64x+64", "\uff16\uff14x64"]
)
async def test_a_size_has_ascii_digits(refused, size):
    error = await refused("POST", ROUTE, json={"prompt": "a", "size": size})
    assert error["param"] == "size"


@pytest.mark.parametrize("route", [ROUTE, "/v1/jobs"])
async def test_previews_without_a_stream_are_refused(refused, route):
    error = await refused("POST", route, json={"prompt": "a", "partial_images": 2})
    assert error["message"] == "partial_images: got 2: must be 0 unless stream is true"
    assert error["param"] == "partial_images"


@pytest.mark.parametrize(
    "given", ["image/gif", "text/html", "image/png;q=0", "application/json;q=0, image/*;q=0", "*/*;q=0"]
)
async def test_what_accept_cannot_take_is_406_before_anything_is_drawn(refused, backend, given):
    error = await refused("POST", ROUTE, status=406, json={"prompt": "a"}, headers={"accept": given})
    possible = "application/json, image/png, image/jpeg, image/webp"
    assert error["message"] == f"Accept: got {given!r}: must accept one of {possible}"
    assert backend.requests == []


async def test_imagine_has_png_alone(http, refused):
    for taken in ("*/*", "image/*;q=0.1", "text/html, image/avif, */*;q=0.8", ""):
        assert (await http.get("/imagine?prompt=a", headers={"accept": taken})).status_code == 200
    await refused("GET", "/imagine?prompt=a", status=406, headers={"accept": "application/json"})


async def test_a_picture_of_a_job_is_what_it_is(http, refused):
    job = (await http.post("/v1/jobs", json={"prompt": "a", "output_format": "webp"})).json()
    url = f"/v1/jobs/{job['id']}/images/0"
    assert (await http.get(url, headers={"accept": "image/webp"})).status_code == 200
    await refused("GET", url, status=406, headers={"accept": "image/png"})


async def test_a_stream_asks_for_itself(http):
    """OpenAI's clients send `Accept: application/json` with it."""
    body = {"prompt": "a", "stream": True}
    for given in ("application/json", "text/event-stream"):
        answer = await http.post(ROUTE, json=body, headers={"accept": given})
        assert answer.headers["content-type"].startswith("text/event-stream")


async def test_accept_may_have_several_lines(http):
    headers = [("accept", "text/html"), ("accept", "image/webp")]
    answer = await http.post(ROUTE, json={"prompt": "a"}, headers=headers)
    assert answer.headers["content-type"] == "image/webp"


@pytest.mark.parametrize(
    ("given", "offer", "taken"),
    [
        ("image/*;q=0.5, image/png;q=0", "image/png", False),
        ("*/*, image/png;q=0", "image/jpeg", True),
        ("image/png;q=nan", "image/png", False),
        ("image/png;q=7", "image/png", False),
        ("IMAGE/PNG ; Q=1", "image/png", True),
    ],
)
def test_the_most_precise_range_has_the_say(given, offer, taken):
    if taken:
        content_negotiation.check(given, [offer])
    else:
        with pytest.raises(Unavailable):
            content_negotiation.check(given, [offer])


async def test_a_body_may_not_take_longer_than_a_request(http, configure):
    configure(limits={"timeout_seconds": 1})

    async def never_ending():
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    answer = await http.post(ROUTE, content=never_ending(), headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "request_timeout")
