# SPDX-License-Identifier: Apache-2.0
"""Third-party clients, unmodified, against the real application."""

import base64
import io
import json

import openai
import pytest
import requests
from PIL import Image

from sd_runtime.engine import device

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
    assert model.device == device.best()
    assert client.models.retrieve(model.id).id == model.id


def test_openai_knows_our_errors(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt=PROMPT, n=99)
    assert (caught.value.param, caught.value.code) == ("n", "invalid_value")


async def test_the_asynchronous_openai_client_streams(running):
    async with openai.AsyncOpenAI(
        base_url=f"{running.local.url}/v1", api_key="none", max_retries=0
    ) as client:
        stream = await client.images.generate(
            prompt=PROMPT, model="bundled://shapes", response_format="b64_json", stream=True
        )
        events = [event async for event in stream]
    assert events[-1].type == "image_generation.completed"


# The pattern's own clients need Locust and Gradio; both send with `requests`, and what they send is in these tests.
# https://github.com/awslabs/data-on-eks, gen-ai/inference/stable-diffusion-rayserve-gpu/locust/locustfile.py and
# gen-ai/inference/gradio-ui/gradio-app-stable-diffusion.py


def test_the_patterns_load_test_gets_its_picture(running):
    """Locust's client is a session of `requests`; this one repeats the query as the body of its GET."""
    asked = {"prompt": "A beautiful sunset over the ocean"}
    with requests.Session() as locust:
        answer = locust.get(
            f"{running.local.url}/imagine",
            params=asked,
            data=json.dumps(asked),
            headers={"Content-Type": "application/json"},
        )
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")


def test_the_patterns_ui_gets_its_picture(running):
    answer = requests.get(f"{running.local.url}/imagine", params={"prompt": PROMPT}, timeout=180)
    answer.raise_for_status()
    assert Image.open(io.BytesIO(answer.content)).size == (64, 64)


def test_the_patterns_ui_sees_an_error(running):
    """It shows a red square for whatever `requests` raises."""
    with pytest.raises(requests.exceptions.RequestException):
        requests.get(f"{running.local.url}/imagine", params={"prompt": ""}, timeout=180).raise_for_status()
