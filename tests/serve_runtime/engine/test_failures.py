# SPDX-License-Identifier: Apache-2.0
"""Clients disconnect, images fail, memory runs out: all other images are generated, and the engine continues."""

import asyncio
import io
import logging
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sd_runtime.config import LiveConfig
from sd_runtime.engine import failures
from sd_runtime.engine.device import Device
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.interface import ImageRequest, Picture, Progress
from sd_runtime.errors import GenerationFailed, InvalidRequest

RED = ImageRequest("a red circle on a white background", "", 64, 64, 6, 4.0, seed=1)


async def draw(engine, request):
    async with aclosing(engine.generate(request)) as found:
        return [update async for update in found if isinstance(update, Picture)]


def same(first, second):
    """Equal up to the rounding of one shade."""
    one, other = (np.asarray(Image.open(io.BytesIO(each.data))).astype(int) for each in (first, second))
    return np.abs(one - other).max() <= 2


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_a_client_that_has_gone_stops_its_work_within_a_step(engine, model, unet_calls, observer, how):
    calls = unet_calls(model)
    request = replace(RED, steps=1000)
    if how == "close":
        async with aclosing(engine.generate(request)) as found:
            async for _ in found:
                break
    else:
        task = asyncio.create_task(draw(engine, request))
        while not calls:  # noqa: ASYNC110 - the first step is taken on another thread
            await asyncio.sleep(0.001)
        task.cancel()
    gone_at = len(calls)
    (picture,) = await draw(engine, replace(RED, steps=1))
    assert picture.data
    assert len(calls) <= gone_at + 2 + 1  # one that was running, perhaps one more, and the new one's
    assert observer.outcomes.count("cancelled") == 1


async def test_nobody_decodes_for_clients_that_are_gone(engine, observer):
    async with aclosing(engine.generate(replace(RED, count=4, steps=4))) as found:
        async for update in found:
            if isinstance(update, Progress) and update.step >= 12:
                break
    assert await draw(engine, RED)
    assert observer.phases.count("decode") <= 1 + 4
    assert observer.outcomes.count("cancelled") + observer.outcomes.count("drawn") == 5


async def test_an_early_end_changes_nothing_for_the_neighbours(engine):
    (alone,) = await draw(engine, RED)
    task = asyncio.create_task(draw(engine, replace(RED, steps=500)))
    neighbour = asyncio.create_task(draw(engine, RED))
    await asyncio.sleep(0.05)
    task.cancel()
    (picture,) = await neighbour
    assert same(picture, alone)


async def test_a_picture_that_is_not_a_number_is_an_error(engine, model):
    bias = model.pipeline.vae.decoder.conv_out.bias
    kept = bias.detach().clone()
    try:
        bias.data.fill_(float("nan"))
        with pytest.raises(GenerationFailed, match=r"contains NaN values.*bfloat16"):
            await draw(engine, RED)
    finally:
        bias.data.copy_(kept)
    assert await draw(engine, RED)


def broken(*_, **__):
    raise ValueError("a secret prompt")


BREAKS = {
    "text": lambda engine: (engine._model.family, "encode"),
    "step": lambda engine: (engine._runner, "_predict"),
    "tick": lambda engine: (engine._runner, "tick"),
    "decoder": lambda engine: (engine._model.pipeline.vae, "decode"),
    "file": lambda engine: (engine._postprocessor, "_encode"),
}


@pytest.mark.parametrize("place", BREAKS)
async def test_a_foreign_error_fails_its_picture_without_its_words(engine, monkeypatch, caplog, lines, place):
    """The log names the request, the kind of error and where it came from; client and log never see its message."""
    monkeypatch.setattr(*BREAKS[place](engine), broken)
    with pytest.raises(GenerationFailed) as caught:
        await draw(engine, replace(RED, prompt="a secret prompt", id="mine-1"))
    assert "secret" not in str(caught.value)
    assert "secret" not in caplog.text
    assert {each["request_id"] for each in lines()} == {"mine-1"}
    assert all("ValueError at " in each["message"] for each in lines())
    monkeypatch.undo()
    assert await draw(engine, RED)


async def test_a_tick_that_breaks_fails_what_was_there_and_the_engine_serves_on(engine, monkeypatch):
    def broken(_):
        raise KeyError("bug")

    monkeypatch.setattr(engine._runner._groups, "next", broken)
    with pytest.raises(GenerationFailed):
        await draw(engine, RED)
    monkeypatch.undo()
    assert await draw(engine, RED)
    await engine.check()


async def test_out_of_memory_in_the_decoder_is_survived(engine, model, monkeypatch):
    decode = model.pipeline.vae.decode

    def small(latents, **kwargs):
        if len(latents) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(latents, **kwargs)

    monkeypatch.setattr(model.pipeline.vae, "decode", small)
    assert len(await draw(engine, replace(RED, count=4))) == 4


async def test_a_long_prompt_is_not_told_in_logs(engine, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    assert await draw(engine, replace(RED, prompt="secret " * 200, steps=1))
    told = capfd.readouterr()
    assert "secret" not in told.out + told.err + caplog.text


async def test_health_is_that_of_device_and_threads(engine, model):
    await engine.check()
    lost = DiffusionEngine(replace(model, device=Device("meta")), LiveConfig())  # it gives no number back
    with pytest.raises(RuntimeError):
        await lost.check()
    lost.close()
    lost._worker._thread.join(10)
    with pytest.raises(GenerationFailed, match="thread"):
        await lost.check()


async def test_closing_fails_what_is_not_drawn(model):
    engine = DiffusionEngine(model, LiveConfig())
    task = asyncio.create_task(draw(engine, replace(RED, steps=1000)))
    await asyncio.sleep(0.1)
    engine.close()
    with pytest.raises(GenerationFailed, match="the engine is shut down"):
        await task


def test_an_error_of_ours_passes_as_it_is():
    error = InvalidRequest("steps: got 1", "steps")
    assert failures.reported(error, "r1") is error
