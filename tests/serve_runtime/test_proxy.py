# SPDX-License-Identifier: Apache-2.0
"""The response of Serve's proxy to a client if the ingress gives none."""

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from sd_runtime.proxy import middlewares


@pytest.fixture
def get():
    """Ask an application through the proxy's middlewares."""

    async def send(app, path="/imagine", **headers):
        for each in middlewares():
            app = each.cls(app, *each.args, **each.kwargs)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
            return await client.get(path, headers=headers)

    return send


async def lost(scope, receive, send):
    """An ingress that ends before it answers."""


async def serving(scope, receive, send):
    """One that tells the id it was given."""
    told = dict(scope["headers"])[b"x-request-id"]
    await PlainTextResponse(told)(scope, receive, send)


async def absent(scope, receive, send):
    """What the proxy itself says while it knows no application."""
    words = "Path '/imagine' not found. Ping http://.../-/routes for available routes."
    await PlainTextResponse(words, 404)(scope, receive, send)


@pytest.mark.parametrize("ingress", [lost, absent])
async def test_an_ingress_that_is_not_there_is_an_error_to_send_again(get, ingress):
    answer = await get(ingress, **{"x-request-id": "mine-1"})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json()["error"] == {
        "message": "the service is starting, or it was lost during the request; retry in 1 s",
        "type": "server_error",
        "param": None,
        "code": "unavailable",
        "request_id": "mine-1",
    }


async def test_a_request_without_an_id_gets_one(get):
    assert (await get(lost)).headers["x-request-id"]
    assert (await get(serving)).text


async def test_an_answer_passes_as_it_is(get):
    answer = await get(serving, **{"x-request-id": "mine-2"})
    assert (answer.status_code, answer.text) == (200, "mine-2")
    answer = await get(JSONResponse({"error": {"code": "not_found"}}, 404))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [(404, 503, "unavailable"), (408, 504, "timeout"), (429, 429, "queue_full"), (503, 503, "unavailable")],
)
async def test_what_the_proxy_says_in_plain_text_is_said_in_json(get, said, status, code):
    answer = await get(PlainTextResponse("Request timed out after 1s.", said), **{"x-request-id": "mine-3"})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    error = answer.json()["error"]
    assert (error["code"], error["request_id"], answer.headers["x-request-id"]) == (code, "mine-3", "mine-3")
    assert "timed out" not in error["message"]


async def test_a_proxy_that_fails_says_so_in_json(get, caplog):
    async def failing(scope, receive, send):
        raise UnicodeDecodeError("utf-8", scope["query_string"], 0, 1, "bad")

    answer = await get(failing, "/imagine?prompt=secret")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text + caplog.text


async def test_an_answer_that_breaks_off_is_not_begun_again(get):
    async def breaking(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await get(breaking)


@pytest.mark.parametrize("path", ["/-/healthz", "/-/routes"])
async def test_rays_own_paths_are_left_alone(get, path):
    answer = await get(PlainTextResponse("This node is being drained.", 503), path)
    assert (answer.status_code, answer.text) == (503, "This node is being drained.")
