# SPDX-License-Identifier: Apache-2.0
"""What a client gets from Serve's proxy where the ingress gives nothing."""

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from sd_runtime.proxy import middlewares


@pytest.fixture
def get():
    """Ask an application through the proxy's middlewares."""

    async def send(app, **headers):
        for each in middlewares():
            app = each.cls(app, *each.args, **each.kwargs)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
            return await client.get("/imagine", headers=headers)

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
        "message": "the service was lost, or is not there yet; send the request again",
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
