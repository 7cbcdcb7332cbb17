# SPDX-License-Identifier: Apache-2.0
"""The engine as the replica uses it, with the real bundled model and without Ray."""

import asyncio
import io
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sd_runtime.config import Batching, Defaults, LiveConfig, Provenance
from sd_runtime.engine import device
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.execution import worker
from sd_runtime.engine.interface import ImageRequest, Output, Picture, Preview, Progress
from sd_runtime.engine.postprocess.encode import parameters
from sd_runtime.errors import GenerationFailed, InvalidRequest

RED = ImageRequest("a red circle on a white background", "", 64, 64, 6, 4.0, seed=1)


async def updates(engine, request):
    async with aclosing(engine.generate(request)) as found:
        return [update async for update in found]


async def draw(engine, request):
    return [update for update in await updates(engine, request) if isinstance(update, Picture)]


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.data))).astype(int)


def same(first, second):
    """Equal up to the rounding of one shade; a batch adds in another order than one picture alone."""
    return np.abs(pixels(first) - pixels(second)).max() <= 2


async def test_same_seed_same_picture(engine):
    (first,), (second,) = await draw(engine, RED), await draw(engine, RED)
    (other,) = await draw(engine, replace(RED, seed=2))
    assert first == second
    assert not same(first, other)


async def test_the_picture_is_the_stock_pipelines(engine, model):
    (drawn,) = await draw(engine, RED)
    stock = model.pipeline(
        prompt=RED.prompt,
        width=64,
        height=64,
        num_inference_steps=6,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(1),
    ).images[0]
    assert np.abs(pixels(drawn) - np.asarray(stock).astype(int)).max() <= 2


async def test_requests_at_the_same_time_share_calls(engine, model, observer):
    requests = [replace(RED, seed=seed, steps=3 + seed) for seed in range(4)]
    alone = [await draw(engine, request) for request in requests]
    observer.steps.clear()
    hour = Batching.model_construct(max_batch_size=4, max_wait_milliseconds=3600 * 1000)
    patient = DiffusionEngine(model, LiveConfig(batching=hour), observer)
    together = await asyncio.gather(*(draw(patient, request) for request in requests))
    patient.close()
    assert all(same(one, other) for (one,), (other,) in zip(alone, together, strict=True))
    assert observer.steps[0] == (4, 8)
    assert len(observer.steps) == 6


async def test_a_full_batch_starts_at_once(model):
    hour = Batching.model_construct(max_batch_size=2, max_wait_milliseconds=3600 * 1000)
    engine = DiffusionEngine(model, LiveConfig(batching=hour))
    async with asyncio.timeout(60):
        await asyncio.gather(draw(engine, RED), draw(engine, replace(RED, seed=2)))
    engine.close()


@pytest.fixture
def patient(model, observer, monkeypatch):
    """Have an engine that waits for nobody draw requests at once; from then on it waits as long as it may."""
    monkeypatch.setattr(worker, "_LATELY_SECONDS", 3600)
    engine = DiffusionEngine(model, LiveConfig(batching=Batching(max_wait_milliseconds=0)), observer)

    async def after(*requests):
        await asyncio.gather(*(draw(engine, each) for each in requests))
        hour = Batching.model_construct(max_batch_size=4, max_wait_milliseconds=3600 * 1000)
        engine.configure(LiveConfig(batching=hour))
        observer.steps.clear()
        return engine

    yield after
    engine.close()


async def test_a_lone_client_waits_for_nobody(patient):
    engine = await patient(RED)
    async with asyncio.timeout(60):
        await draw(engine, RED)


async def test_as_many_as_were_drawn_at_once_are_waited_for(patient, observer):
    engine = await patient(replace(RED, count=3))
    async with asyncio.timeout(60):
        first = asyncio.create_task(draw(engine, RED))
        await asyncio.sleep(0)  # it has been asked for
        await asyncio.gather(first, draw(engine, replace(RED, count=2)))
    assert set(observer.steps) == {(3, 6)}


async def test_pictures_of_one_request_have_seeds_in_a_row(engine):
    pictures = await draw(engine, replace(RED, count=3, seed=10))
    assert sorted((picture.index, picture.seed) for picture in pictures) == [(0, 10), (1, 11), (2, 12)]
    (alone,) = await draw(engine, replace(RED, seed=11))
    assert same(alone, next(picture for picture in pictures if picture.index == 1))


async def test_progress_goes_from_the_queue_to_the_last_step(engine):
    busy = asyncio.create_task(draw(engine, replace(RED, count=4, steps=30)))
    await asyncio.sleep(0.2)
    found = [each for each in await updates(engine, replace(RED, count=2)) if isinstance(each, Progress)]
    assert found[0].step == 0
    assert {each.steps for each in found} == {12}
    assert found[-1] == Progress(ahead=0, step=12, steps=12)
    assert [each.step for each in found] == sorted(each.step for each in found)
    await busy


async def test_ahead_counts_the_images_that_begin_before(engine):
    """Four run. Of the three that wait, one begins before the new request, and two after it: requests take turns."""
    busy = engine.generate(replace(RED, count=4, steps=100))
    while (await anext(busy)).step == 0:
        pass
    second = engine.generate(replace(RED, count=3))
    assert (await anext(second)).ahead == 0
    third = engine.generate(RED)
    assert await anext(third) == Progress(ahead=1, step=0, steps=6)
    for each in (busy, second, third):
        await each.aclose()


async def test_a_request_of_many_images_does_not_lock_out_a_single_one(engine):
    """Both wait for the same four places; the single image takes the first that is free."""
    many = engine.generate(replace(RED, count=12, steps=20))
    while (await anext(many)).step == 0:
        pass
    single = asyncio.create_task(draw(engine, replace(RED, steps=20)))
    drawn = 0
    async for update in many:
        drawn += isinstance(update, Picture)
        if single.done():
            break
    assert single.done()
    assert drawn <= 8  # those that ran when it came, and those that began with it
    await many.aclose()


async def test_progress_counts_the_requests_steps_whatever_the_scheduler_makes_of_them(engine):
    found = await updates(engine, replace(RED, scheduler="Heun", steps=5))
    assert [each for each in found if isinstance(each, Progress)][-1] == Progress(0, 5, 5)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
async def test_previews_come_on_the_way_in_the_wanted_format(engine, kind):
    request = replace(RED, steps=12, count=2, output=Output(format=kind, compression=80, previews=3))
    found = [each for each in await updates(engine, request) if not isinstance(each, Progress)]
    previews = [each for each in found if isinstance(each, Preview)]
    assert sorted((each.index, each.number) for each in previews) == [
        (index, number) for index in (0, 1) for number in (0, 1, 2)
    ]
    for each in found:
        assert Image.open(io.BytesIO(each.data)).format.lower() == kind
    assert isinstance(found[-1], Picture)


async def test_each_preview_looks_like_the_picture(engine):
    """The first one as well as the last, since both show what the picture is to become, without noise."""
    found = await updates(engine, replace(RED, steps=12, output=Output(previews=3)))
    drawn = pixels(next(each for each in found if isinstance(each, Picture)))
    shown = sorted((each.number, each.data) for each in found if isinstance(each, Preview))
    small = [np.asarray(Image.open(io.BytesIO(data)).resize((64, 64))).astype(int) for _, data in shown]
    first, _, last = [np.abs(each - drawn).mean() for each in small]
    assert last < 30
    assert first < 1.15 * last


async def test_the_file_tells_what_makes_it_again(engine):
    engine.configure(LiveConfig(provenance=Provenance(prompt=True), defaults=Defaults(steps=3)))
    (picture,) = await draw(engine, replace(RED, steps=None, id="abc"))
    told = parameters(picture.data)
    assert told["prompt"] == RED.prompt
    assert (told["seed"], told["steps"], told["guidance"], told["scheduler"]) == (1, 3, 4.0, "Euler")
    assert (told["model"], told["request_id"]) == ("bundled://shapes", "abc")


async def test_info_tells_the_defaults(engine, model):
    engine.configure(LiveConfig(defaults=Defaults(steps=9, width=128)))
    info = engine.info()
    expected = {"width": 128, "height": 64, "steps": 9, "scheduler": "Euler"}
    assert expected.items() <= info.defaults.items()
    kind = device.best()
    dtype = "float32" if kind == "cpu" else model.config.model.dtype
    assert (info.device, info.dtype, info.loras) == (kind, dtype, ())
    assert info.optimizations["compile"] is False


@pytest.mark.parametrize(
    ("wrong", "param"),
    [({"loras": ("nobody",)}, "lora"), ({"scheduler": "LCM", "steps": 60}, "steps")],
    ids=["unknown LoRA", "too many steps"],
)
async def test_what_the_model_cannot_do_is_the_clients_error(engine, wrong, param):
    with pytest.raises(InvalidRequest) as caught:
        await draw(engine, replace(RED, **wrong))
    assert caught.value.param == param


async def test_the_observer_is_told_of_each_phase(engine, observer):
    await draw(engine, replace(RED, prompt="new words", negative_prompt="none such", count=2))
    await draw(engine, replace(RED, prompt="new words", negative_prompt="none such"))
    assert observer.coded == [2, 2]
    assert {each: observer.phases.count(each) for each in set(observer.phases)} == {
        "queue": 3, "encode": 1, "denoise": 3, "decode": 3, "file": 3,
    }  # fmt: skip
    assert observer.outcomes == ["drawn"] * 3
    assert (0, 2) in observer.loads
    assert observer.loads[-1] == (0, 0)


async def test_every_update_says_what_of_the_request_has_no_effect(engine):
    request = replace(RED, negative_prompt="blue", guidance=1.0, output=Output(previews=1), count=2)
    for update in await updates(engine, request):
        assert [each.code for each in update.warnings] == ["negative_prompt_ignored"]
    for update in await updates(engine, replace(request, guidance=4.0)):
        assert update.warnings == ()


async def test_a_prompt_of_any_length_is_drawn_beside_short_ones(engine, observer):
    long = replace(RED, prompt=RED.prompt + " and a blue square" * 30)
    (alone,) = await draw(engine, long)
    (short,), (together,) = await asyncio.gather(draw(engine, RED), draw(engine, long))
    assert same(alone, together)
    assert not same(short, together)
    with pytest.raises(InvalidRequest, match="prompt: got 134 chunks"):
        await draw(engine, replace(RED, prompt="x" * 10000))


async def test_a_fault_of_the_device_beside_fails_its_picture_and_not_the_thread(engine, model, monkeypatch):
    """A wait for the device may raise as well as the decoder: the next picture is decoded."""

    def broken(_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(model.device, "wait", broken)
    with pytest.raises(GenerationFailed, match="the pipeline failed with RuntimeError"):
        _ = [update async for update in engine.generate(RED)]
    monkeypatch.undo()
    assert isinstance([update async for update in engine.generate(RED)][-1], Picture)
    await engine.check()
