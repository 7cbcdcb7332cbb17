# SPDX-License-Identifier: Apache-2.0
"""Errors as a client reads them, on a small test application."""

import logging

import httpx
import pytest
from fastapi import FastAPI

from sd_runtime.api import errors
from sd_runtime.api.errors import Unavailable
from sd_runtime.api.schemas import GenerationBody
from sd_runtime.engine.interface import ImageRequest
from sd_runtime.errors import GenerationFailed, InvalidRequest

RAISED = {
    "invalid": InvalidRequest("steps: got 0: must be from 1 to 100", "steps"),
    "full": Unavailable(429, "the queue is full", retry_after=2),
    "late": Unavailable(504, "not done within 1 s"),
    "nan": GenerationFailed("the image contains NaN values"),
    "bug": RuntimeError("a secret prompt"),
}


@pytest.fixture
async def client():
    api = FastAPI()
    errors.install(api)

    @api.get("/raise/{name}")
    async def fail(name: str) -> ImageRequest:
        raise RAISED[name]

    @api.post("/body")
    async def read(body: GenerationBody) -> str:
        return body.prompt

    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as running:
        yield running


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("invalid", 400, "invalid_request_error"),
        ("full", 429, "rate_limit_error"),
        ("late", 504, "server_error"),
        ("nan", 500, "server_error"),
        ("bug", 500, "server_error"),
    ],
)
async def test_every_error_has_the_shape_of_openai(client, name, status, kind):
    answer = await client.get(f"/raise/{name}")
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "request_id"}
    assert error["type"] == kind
    assert error["message"]


async def test_retry_after_is_a_header(client):
    assert (await client.get("/raise/full")).headers["retry-after"] == "2"
    assert "retry-after" not in (await client.get("/raise/late")).headers


async def test_a_bug_shows_its_request_id_and_no_message(client, caplog):
    with caplog.at_level(logging.ERROR):
        answer = await client.get("/raise/bug", headers={"x-request-id": "mine-1"})
    assert "mine-1" in answer.json()["error"]["message"]
    (record,) = [each for each in caplog.records if each.name == "sd_runtime.api.errors"]
    assert record.getMessage().startswith("a request failed with an unexpected RuntimeError")
    assert record.fields == {"request_id": "mine-1"}
    assert "secret" not in answer.text + caplog.text


@pytest.mark.parametrize("given", ["x" * 129, "a b", "<script>"], ids=["long", "blank", "markup"])
async def test_an_id_that_is_not_plain_is_not_quoted(client, given):
    answer = await client.get("/raise/bug", headers={"x-request-id": given})
    assert answer.status_code == 500
    assert given not in answer.text


async def test_wrong_method_tells_the_right_ones(client):
    answer = await client.get("/body")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert (
        answer.json()["error"]["message"]
        == "the method GET is not allowed on /body; the header Allow lists the methods"
    )


@pytest.mark.parametrize(
    "body",
    [
        {"json": {"prompt": ["secret"]}},
        {"json": ["secret"]},
        {"content": b"secret", "headers": {"content-type": "text/plain"}},
        {"content": b'{"prompt": "secret', "headers": {"content-type": "application/json"}},
    ],
    ids=["prompt of another type", "list", "text", "cut JSON"],
)
async def test_a_prompt_is_never_quoted(client, body):
    answer = await client.post("/body", **body)
    assert answer.status_code == 400
    assert "secret" not in answer.text


async def test_an_unknown_field_is_named_in_short(client):
    answer = await client.post("/body", json={"prompt": "a", "y" * 5000: 1})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unknown_field"
    assert len(answer.text) < 400
