# SPDX-License-Identifier: Apache-2.0
"""The bundled model behind the HTTP API, with a tiny safety checker that flags one image and passes another."""

import asyncio
import json
import pickle
from contextlib import aclosing
from dataclasses import replace

import diffusers
import httpx
import pytest
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

from sd_runtime.api import application
from sd_runtime.api.image_backend import Readiness
from sd_runtime.api.service import Service
from sd_runtime.config import Batching, LiveConfig, ModelConfig, RuntimeConfig
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.interface import ImageRequest, Output, Picture
from sd_runtime.engine.loader import load
from sd_runtime.engine.postprocess.decode import Decoder
from sd_runtime.errors import ContentWithheld, GenerationFailed, InvalidRequest

GOOD, BAD = 1, 2  # seeds
RED = ImageRequest("a red circle on a white background", "", 64, 64, 6, 4.0, seed=GOOD)
BODY = {"prompt": RED.prompt, "num_inference_steps": 6, "guidance_scale": 4}
ROUTE = "/v1/images/generations"


@pytest.fixture(scope="module")
def checker():
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    config = transformers.CLIPConfig(vision_config=vision, projection_dim=8)
    return StableDiffusionSafetyChecker(config).eval()


def embedding(pipeline, extractor, checker, seed):
    """What the checker sees in the image of a seed."""
    image = pipeline(
        RED.prompt, width=64, height=64, num_inference_steps=6, guidance_scale=4.0,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]  # fmt: skip
    seen = extractor(image, return_tensors="pt").pixel_values
    return torch.nn.functional.normalize(checker.visual_projection(checker.vision_model(seen)[1])[0], dim=0)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, model, checker):
    """The model of a folder that has the checker; its one concept is what distinguishes the bad image."""
    extractor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    with torch.inference_mode():
        good, bad = (embedding(model.pipeline, extractor, checker, seed) for seed in (GOOD, BAD))
        checker.concept_embeds[:] = bad - good
        checker.concept_embeds_weights[:] = 0.0
        checker.special_care_embeds_weights[:] = 2.0  # no cosine is above it
    components = {**model.pipeline.components, "safety_checker": checker, "feature_extractor": extractor}
    folder = tmp_path_factory.mktemp("guarded")
    diffusers.StableDiffusionPipeline(**components).save_pretrained(folder)
    return load(RuntimeConfig(model=ModelConfig(uri=f"file://{folder}")))


@pytest.fixture
async def engine(guarded, observer):
    live = LiveConfig(batching=Batching(max_batch_size=4, max_wait_milliseconds=50))
    running = DiffusionEngine(guarded, live, observer)
    yield running
    running.close()


class EngineDrawer:
    """The engine in this process, in place of Ray's handle."""

    def __init__(self, engine):
        self._engine = engine

    async def stream(self, request, limits):
        async with aclosing(self._engine.generate(request)) as updates:
            async for update in updates:
                yield update

    async def draw(self, request, limits):
        return [each async for each in self.stream(request, limits) if isinstance(each, Picture)]

    async def readiness(self):
        return Readiness(ready=True, phase="ready")

    async def info(self):
        return self._engine.info()

    async def starts(self):
        return {}


@pytest.fixture
async def http(engine):
    config = RuntimeConfig(model=ModelConfig(uri="bundled://shapes"))
    app = application(Service(config, EngineDrawer(engine)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client
    await app.state.jobs.close()


def withheld(error, index, count):
    assert (error["code"], error["type"], error["param"]) == (
        "content_policy_violation",
        "invalid_request_error",
        "prompt",
    )
    assert f"rejected image {index} of {count} (the first image is 0)" in error["message"]


async def test_a_flagged_image_is_the_clients_error_and_the_other_is_drawn(http, observer):
    assert (await http.post(ROUTE, json=BODY | {"seed": GOOD})).status_code == 200
    answer = await http.post(ROUTE, json=BODY | {"seed": BAD})
    assert answer.status_code == 400
    withheld(answer.json()["error"], 0, 1)
    file = await http.get("/imagine", params={"prompt": RED.prompt, "steps": 6, "guidance": 4, "seed": BAD})
    assert file.status_code == 400
    assert observer.outcomes == ["drawn", "withheld", "withheld"]


async def test_the_flagged_image_of_several_is_named(http):
    answer = await http.post(ROUTE, json=BODY | {"seed": GOOD, "n": 2})
    assert answer.status_code == 400
    withheld(answer.json()["error"], BAD - GOOD, 2)


async def test_a_stream_ends_with_the_error(http):
    answer = await http.post(ROUTE, json=BODY | {"seed": BAD, "stream": True})
    *_, last = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    withheld(json.loads(last)["error"], 0, 1)
    assert "b64_json" not in answer.text


async def test_a_job_fails_with_it(http):
    url = (await http.post("/v1/jobs", json=BODY | {"seed": BAD})).headers["location"]
    async with asyncio.timeout(30):
        while (job := (await http.get(url)).json())["state"] in {"queued", "running"}:  # noqa: ASYNC110 - as clients do
            await asyncio.sleep(0.01)
    assert (job["state"], job["images"]) == ("failed", [])
    withheld(job["error"], 0, 1)


async def test_neighbours_of_a_flagged_image_are_drawn(http):
    answers = await asyncio.gather(
        *(http.post(ROUTE, json=BODY | {"seed": seed}) for seed in (BAD, GOOD, GOOD))
    )
    assert [each.status_code for each in answers] == [400, 200, 200]


async def test_unfinished_images_are_not_shown_and_the_answer_says_so(http, guarded):
    assert guarded.colours is not None
    answer = await http.post(ROUTE, json=BODY | {"seed": GOOD, "stream": True, "partial_images": 2})
    (event,) = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert event["type"] == "image_generation.completed"
    (warning,) = event["warnings"]
    assert (warning["code"], warning["param"]) == ("partial_images_ignored", "partial_images")
    assert warning["message"].startswith(
        "partial_images: got 2: no partial image is sent, because this model's safety checker"
    )


def test_a_broken_image_lets_no_neighbour_pass_unchecked(bench, guarded):
    latents = bench(guarded).latents(RED, replace(RED, seed=BAD), replace(RED, seed=3))
    latents[2] = latents[2] * float("nan")
    with torch.inference_mode():
        good, bad, broken = Decoder(guarded.pipeline).decode(latents)
    assert good.size == (64, 64)
    assert isinstance(bad, ContentWithheld)
    assert isinstance(broken, GenerationFailed)
    assert not isinstance(broken, ContentWithheld)


def test_the_error_survives_the_way_from_the_replica():
    error = pickle.loads(pickle.dumps(ContentWithheld.image(1, 2)))  # noqa: S301 - made here
    assert isinstance(error, ContentWithheld)
    assert (error.param, error.code) == ("prompt", "content_policy_violation")
    assert "image 1 of 2" in str(error)


class Another(diffusers.StableDiffusionPipeline):
    """A pipeline that the engine does not know."""


async def test_a_pipeline_that_checks_by_itself_is_heard(guarded, observer):
    unknown = replace(guarded, pipeline=Another(**guarded.pipeline.components), family=None, colours=None)
    unknown.pipeline.set_progress_bar_config(disable=True)
    engine = DiffusionEngine(unknown, LiveConfig(), observer)
    wanted = replace(RED, output=Output(previews=1))
    found = [update async for update in engine.generate(wanted)]
    assert isinstance(found[-1], Picture)
    assert [each.code for each in found[-1].warnings] == ["partial_images_ignored"]
    with pytest.raises(ContentWithheld, match="image 1 of 2"):
        [update async for update in engine.generate(replace(RED, count=2))]
    assert observer.outcomes == ["drawn", "drawn", "withheld"]
    # Its own code for this fails with the installed transformers.
    with pytest.raises(InvalidRequest, match="clip_skip: got 1: a Another does not support it"):
        [update async for update in engine.generate(replace(RED, clip_skip=1))]
    engine.close()
