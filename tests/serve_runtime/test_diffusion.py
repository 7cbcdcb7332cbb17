# SPDX-License-Identifier: Apache-2.0
"""The engine on the real bundled pipeline, without Ray."""

import asyncio
import io
import shutil
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from sd_runtime.config import Batching, LiveConfig, ModelConfig
from sd_runtime.diffusion import BatchingEngine, batching, load
from sd_runtime.diffusion.schedulers import SCHEDULERS
from sd_runtime.engine import ImageRequest
from sd_runtime.errors import GenerationFailed, ModelUnavailable
from sd_runtime.images import parameters

RED = ImageRequest("a red circle on a white background", "", 64, 64, 6, 4.0, seed=1, count=1)


@pytest.fixture
async def engine(model):
    running = BatchingEngine(model, LiveConfig(batching=Batching(max_batch_size=4, max_wait_milliseconds=20)))
    yield running
    running.close()


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.png))).astype(int)


def same(first, second):
    """Equal up to the rounding of one shade; a batch adds in another order than one picture alone."""
    return np.abs(pixels(first) - pixels(second)).max() <= 2


async def test_cpu_computes_float32_whatever_was_asked(model, engine):
    assert (model.device, model.dtype) == ("cpu", "float32")
    assert engine.info().dtype == "float32"
    assert (model.width, model.height) == (64, 64)


async def test_same_seed_same_picture(engine):
    (first,), (second,) = await engine.generate(RED), await engine.generate(RED)
    (other,) = await engine.generate(replace(RED, seed=2))
    assert first == second
    assert not same(first, other)


async def test_a_batch_changes_no_picture(engine):
    requests = [
        replace(RED, seed=seed, prompt=f"a {colour} square")
        for seed, colour in enumerate(["red", "blue", "green"])
    ]
    alone = [await engine.generate(request) for request in requests]
    together = await asyncio.gather(*map(engine.generate, requests))
    assert all(same(one, other) for (one,), (other,) in zip(alone, together, strict=True))


async def test_requests_of_different_shape_do_not_share_scheduler_state(engine):
    requests = [replace(RED, steps=steps, seed=steps) for steps in (3, 5, 8, 4)]
    alone = [await engine.generate(request) for request in requests]
    together = await asyncio.gather(*map(engine.generate, requests))
    assert all(same(one, other) for (one,), (other,) in zip(alone, together, strict=True))


async def test_waiting_pictures_of_one_shape_share_a_call(engine, monkeypatch):
    sizes = []

    def counting(model, drawings, wanted):
        sizes.append(len(drawings))
        return draw(model, drawings, wanted)

    draw = batching.draw
    monkeypatch.setattr(batching, "draw", counting)
    await asyncio.gather(*(engine.generate(replace(RED, seed=seed)) for seed in range(6)))
    assert max(sizes) == 4
    assert sum(sizes) == 6


async def test_a_full_batch_starts_at_once(model):
    hour = Batching.model_construct(max_batch_size=2, max_wait_milliseconds=3600 * 1000)
    engine = BatchingEngine(model, LiveConfig(batching=hour))
    async with asyncio.timeout(60):
        await asyncio.gather(engine.generate(RED), engine.generate(replace(RED, seed=2)))
    engine.close()


async def test_pictures_of_one_request_have_seeds_in_a_row(engine):
    pictures = await engine.generate(replace(RED, count=3, seed=10))
    assert [picture.seed for picture in pictures] == [10, 11, 12]
    (alone,) = await engine.generate(replace(RED, seed=11))
    assert same(alone, pictures[1])


async def test_file_holds_the_parameters(engine):
    (picture,) = await engine.generate(RED)
    assert parameters(picture.png) == {
        "prompt": RED.prompt,
        "negative_prompt": "",
        "seed": 1,
        "steps": 6,
        "guidance": 4.0,
        "width": 64,
        "height": 64,
    }


async def test_one_broken_picture_fails_alone_and_the_engine_serves_on(engine, monkeypatch):
    def sometimes(model, drawings, wanted):
        if any(drawing.prompt == "broken" for drawing in drawings):
            raise ValueError("a secret prompt")
        return draw(model, drawings, wanted)

    draw = batching.draw
    monkeypatch.setattr(batching, "draw", sometimes)
    results = await asyncio.gather(
        engine.generate(RED), engine.generate(replace(RED, prompt="broken")), return_exceptions=True
    )
    assert isinstance(results[1], GenerationFailed)
    assert "secret" not in str(results[1])
    assert results[0][0].png
    assert await engine.generate(RED)


async def test_a_picture_that_is_not_a_number_is_an_error(engine, model):
    bias = model.pipeline.vae.decoder.conv_out.bias
    kept = bias.detach().clone()
    try:
        bias.data.fill_(float("nan"))
        with pytest.raises(GenerationFailed, match="not a number"):
            await engine.generate(RED)
    finally:
        bias.data.copy_(kept)
    assert await engine.generate(RED)


async def test_a_client_that_has_gone_stops_its_work(engine, monkeypatch):
    asked = []

    def counting(model, drawings, wanted):
        def counted():
            asked.append(1)
            return wanted()

        return draw(model, drawings, counted)

    draw = batching.draw
    monkeypatch.setattr(batching, "draw", counting)
    task = asyncio.create_task(engine.generate(replace(RED, steps=1000)))
    async with asyncio.timeout(60):
        while not asked:  # noqa: ASYNC110 - the first step is taken on another thread
            await asyncio.sleep(0.01)
    task.cancel()
    assert (await engine.generate(RED))[0].png  # on the one thread, so the cancelled call has ended
    assert len(asked) < 900


async def test_health_is_that_of_the_device(engine, model):
    await engine.check()
    lost = BatchingEngine(replace(model, device="meta"), LiveConfig())  # a device that gives no number back
    with pytest.raises(RuntimeError):
        await lost.check()


@pytest.mark.parametrize("name", list(SCHEDULERS))
async def test_every_scheduler_draws(name):
    engine = BatchingEngine(load(ModelConfig(uri="bundled://shapes", scheduler=name)), LiveConfig())
    (picture,) = await engine.generate(RED)
    assert pixels(picture).std() > 1
    engine.close()


@pytest.fixture
def shapes(tmp_path):
    """A copy of the bundled model, to be broken."""
    return shutil.copytree(files("sd_runtime") / "models/shapes", tmp_path / "shapes")


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda folder: cut(folder / "unet/diffusion_pytorch_model.safetensors"), "unet"),
        (lambda folder: cut(folder / "text_encoder/model.safetensors"), "SafetensorError"),
        (lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").unlink(), "no file named"),
        (lambda folder: (folder / "model_index.json").write_text('{"_class_name": "Nope"}'), "Nope"),
        (lambda folder: (folder / "model_index.json").write_text("{}"), "_class_name"),
    ],
    ids=["cut UNet", "cut text encoder", "no UNet weights", "unknown pipeline", "empty index"],
)
def test_a_folder_that_does_not_load_is_refused_by_name(shapes, wrong, says):
    wrong(shapes)
    uri = f"file://{shapes}"
    with pytest.raises(ModelUnavailable, match="does not load") as caught:
        load(ModelConfig(uri=uri))
    assert repr(uri) in str(caught.value)
    assert says in str(caught.value)


def test_weights_in_pickle_are_refused(shapes):
    """They run code when read."""
    weights = shapes / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelUnavailable, match="no file named diffusion_pytorch_model"):
        load(ModelConfig(uri=f"file://{shapes}"))
