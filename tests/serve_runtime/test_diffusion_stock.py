# SPDX-License-Identifier: Apache-2.0
"""Pipelines without a loop of ours: here Stable Diffusion 3, tiny and random."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import diffusers
import pytest
import torch
import transformers

from sd_runtime.config import LiveConfig, ModelConfig, RuntimeConfig
from sd_runtime.diffusion import DiffusionEngine, load
from sd_runtime.diffusion.drawing import Drawing
from sd_runtime.diffusion.studios import studio
from sd_runtime.engine import ImageRequest, Output, Picture, Preview, Progress
from sd_runtime.errors import ConfigError, GenerationFailed, InvalidRequest
from sd_runtime.observer import Silent

RED = ImageRequest("a red circle", "", 64, 64, 4, 4.0, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer, text_encoder, vae):
    torch.manual_seed(0)
    pipeline = diffusers.StableDiffusion3Pipeline(
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=tokenizer,
        text_encoder=text_encoder(transformers.CLIPTextModelWithProjection),
        text_encoder_2=text_encoder(transformers.CLIPTextModelWithProjection),
        text_encoder_3=transformers.T5EncoderModel(
            transformers.T5Config(
                vocab_size=len(tokenizer), d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=2
            )
        ),
        vae=vae(4, shift_factor=0.1),
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            out_channels=4,
            pos_embed_max_size=96,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    found = tmp_path_factory.mktemp("sd3")
    pipeline.save_pretrained(found)
    return found


@pytest.fixture(scope="module")
def other(folder):
    return load(RuntimeConfig(model=ModelConfig(uri=f"file://{folder}")))


@pytest.fixture
async def engine(other):
    running = DiffusionEngine(other, LiveConfig())
    yield running
    running.close()


async def updates(engine, request):
    async with aclosing(engine.generate(request)) as found:
        return [update async for update in found]


def test_it_has_no_loop_of_ours(other):
    assert other.family is None
    assert other.tuned.effective == dict.fromkeys(other.tuned.effective, False)


async def test_pictures_come_through_the_same_interface(engine):
    found = await updates(engine, replace(RED, count=2, output=Output(previews=2)))
    pictures = [each for each in found if isinstance(each, Picture)]
    assert [(each.index, each.seed) for each in pictures] == [(0, 1), (1, 2)]
    assert pictures[0].data != pictures[1].data
    assert not [each for each in found if isinstance(each, Preview)]
    steps = [each for each in found if isinstance(each, Progress)]
    assert steps[-1] == Progress(ahead=0, step=8, steps=8)


async def test_same_seed_same_picture(engine):
    again = [await updates(engine, RED) for _ in range(2)]
    assert again[0][-1] == again[1][-1]


async def test_who_has_gone_stops_the_call(engine, other, monkeypatch):
    calls = []
    handle = other.pipeline.transformer.register_forward_hook(lambda *_: calls.append(1))
    async with aclosing(engine.generate(replace(RED, steps=300))) as found:
        async for update in found:
            if isinstance(update, Progress) and update.step >= 2:
                break
    gone_at = len(calls)
    assert (await updates(engine, replace(RED, steps=2)))[-1].data
    assert len(calls) <= gone_at + 2 + 2
    handle.remove()


async def test_who_goes_while_waiting_is_never_begun(engine, other):
    calls = []
    handle = other.pipeline.transformer.register_forward_hook(lambda *_: calls.append(1))
    first = asyncio.create_task(updates(engine, replace(RED, steps=20)))
    second = asyncio.create_task(updates(engine, RED))
    await asyncio.sleep(0.02)
    second.cancel()
    await first
    await updates(engine, replace(RED, steps=2))
    assert len(calls) == 22
    handle.remove()


@pytest.mark.parametrize(
    ("wrong", "param"),
    [({"scheduler": "Euler"}, "scheduler"), ({"loras": ("a",)}, "lora")],
    ids=["scheduler", "LoRA"],
)
async def test_what_it_cannot_do_is_refused(engine, wrong, param):
    with pytest.raises(InvalidRequest) as caught:
        await updates(engine, replace(RED, **wrong))
    assert caught.value.param == param


async def test_a_pipeline_that_knows_no_negative_prompt_refuses_one(engine, other, monkeypatch):
    def call(self, prompt, width, height):
        """As FLUX."""

    monkeypatch.setattr(type(other.pipeline), "__call__", call)
    with pytest.raises(InvalidRequest, match="negative_prompt"):
        await updates(engine, replace(RED, negative_prompt="blue"))


async def test_a_failed_picture_leaves_the_engine_serving(engine, other, monkeypatch):
    def broken(*_, **__):
        raise ValueError("a secret prompt")

    monkeypatch.setattr(other.pipeline.transformer, "forward", broken)
    with pytest.raises(GenerationFailed, match=r"ValueError$"):
        await updates(engine, RED)
    monkeypatch.undo()
    assert await updates(engine, RED)


async def test_not_a_number_is_an_error(engine, other, monkeypatch):
    monkeypatch.setattr(other.pipeline.vae.decoder.conv_out.bias, "data", torch.full((3,), float("nan")))
    with pytest.raises(GenerationFailed, match="not a number"):
        await updates(engine, RED)


def test_out_of_memory_fails_its_picture(other, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    room = studio(other, Silent())
    first, second = Drawing(RED), Drawing(RED)
    room.join(first)
    room.join(second)
    monkeypatch.setattr(other.pipeline.transformer, "forward", full)
    assert [drawing for drawing, _ in room.tick().failed] == [first]
    monkeypatch.undo()
    assert room.tick().finished == [second]


def test_a_scheduler_cannot_be_set_for_it(folder):
    with pytest.raises(ConfigError, match=r"model\.scheduler: got 'Euler'"):
        load(RuntimeConfig(model=ModelConfig(uri=f"file://{folder}", scheduler="Euler")))
