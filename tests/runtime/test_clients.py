# SPDX-License-Identifier: Apache-2.0
"""Clients that others wrote, unmodified, against the real application."""

import base64
import io

import openai
import pytest
from PIL import Image

PROMPT = "a red circle on a white background"


@pytest.fixture(scope="session")
def client(running):
    with openai.OpenAI(base_url=f"{running.local.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_openai_generates(client):
    answer = client.images.generate(
        model="bundled://shapes",
        prompt=PROMPT,
        n=2,
        size="64x64",
        quality="auto",
        output_format="jpeg",
        output_compression=80,
        extra_body={"seed": 5, "num_inference_steps": 4, "guidance_scale": 4, "negative_prompt": "blue"},
    )
    assert [opened(each.b64_json).format for each in answer.data] == ["JPEG", "JPEG"]
    assert [each.seed for each in answer.data] == [5, 6]


def test_openai_streams(client):
    with client.images.generate(
        prompt=PROMPT, stream=True, partial_images=2, extra_body={"seed": 5, "num_inference_steps": 8}
    ) as stream:
        events = list(stream)
    assert events[-1].type == "image_generation.completed"
    assert opened(events[-1].b64_json).size == (64, 64)
    assert {event.type for event in events[:-1]} <= {"image_generation.partial_image"}
    assert [event.partial_image_index for event in events[:-1]] == list(range(len(events) - 1))
    whole = client.images.generate(prompt=PROMPT, extra_body={"seed": 5, "num_inference_steps": 8})
    assert opened(whole.data[0].b64_json).tobytes() == opened(events[-1].b64_json).tobytes()


def test_openai_lists_the_model(client):
    (model,) = client.models.list()
    assert model.id == "bundled://shapes"
    assert model.device == "cpu"
    assert client.models.retrieve(model.id).id == model.id


def test_openai_knows_our_errors(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt=PROMPT, n=99)
    assert (caught.value.param, caught.value.code) == ("n", "invalid_value")


def test_the_patterns_ui_gets_its_picture(http):
    """A prompt in the query and nothing else; the body opened as a picture."""
    answer = http.get("/imagine", params={"prompt": PROMPT})
    answer.raise_for_status()
    assert Image.open(io.BytesIO(answer.content)).format == "PNG"
