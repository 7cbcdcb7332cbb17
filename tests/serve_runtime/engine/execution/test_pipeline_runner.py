# SPDX-License-Identifier: Apache-2.0
"""Pipelines without a native denoising loop: here Stable Diffusion 3, tiny and random."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import diffusers
import pytest
import torch
import transformers

from sd_runtime.config import LiveConfig, ModelConfig, RuntimeConfig
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.execution.pipeline_runner import guided
from sd_runtime.engine.execution.runners import runner
from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.interface import ImageRequest, Output, Picture, Preview, Progress
from sd_runtime.engine.loader import load
from sd_runtime.engine.prompts.limits import PromptLimits
from sd_runtime.engine.schedule_options import ScheduleOptions
from sd_runtime.errors import ConfigError, GenerationFailed, InvalidRequest
from sd_runtime.observability.observer import Silent

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
    assert (steps[-1].ahead, steps[-1].step, steps[-1].steps) == (0, 8, 8)
    assert {each.code for update in found for each in update.warnings} == {"partial_images_ignored"}


class _Steps(Silent):
    """An observer that keeps the steps."""

    def __init__(self):
        self.found = []

    def step(self, pictures, rows, seconds):
        self.found.append((pictures, rows, seconds))


async def test_a_step_is_measured_from_the_network_to_the_callback(other, monkeypatch):
    """Not the text encoders before the first one, nor the decoder after the last one."""
    calls, stopwatch, observer = [], other.device.stopwatch, _Steps()

    def recorded(report):
        calls.append("start")
        stop = stopwatch(report)
        return lambda: (calls.append("stop"), stop())

    monkeypatch.setattr(other.device, "stopwatch", recorded)
    watched = {
        "text": other.pipeline.text_encoder_3,
        "network": other.pipeline.transformer,
        "decoder": other.pipeline.vae.decoder,
    }
    handles = [
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, module in watched.items()
    ]
    engine = DiffusionEngine(other, LiveConfig(), observer)
    try:
        await updates(engine, replace(RED, steps=2))
    finally:
        engine.close()
        for handle in handles:
            handle.remove()
    assert [name for name in calls if name != "text"] == [*["start", "network", "stop"] * 2, "decoder"]
    assert max(index for index, name in enumerate(calls) if name == "text") < calls.index("start")
    assert [each[:2] for each in observer.found] == [(1, 2)] * 2
    assert all(seconds > 0 for *_, seconds in observer.found)


async def test_a_step_that_failed_is_not_measured(other, monkeypatch):
    observer, forward = _Steps(), other.pipeline.transformer.forward
    monkeypatch.setattr(other.pipeline.transformer, "forward", lambda *_, **__: 1 / 0)
    engine = DiffusionEngine(other, LiveConfig(), observer)
    try:
        with pytest.raises(GenerationFailed):
            await updates(engine, replace(RED, steps=2))
        monkeypatch.setattr(other.pipeline.transformer, "forward", forward)
        await updates(engine, replace(RED, steps=2))
    finally:
        engine.close()
    assert len(observer.found) == 2


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
    with pytest.raises(GenerationFailed, match="contains NaN values"):
        await updates(engine, RED)


def test_out_of_memory_fails_its_picture(other, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    room = runner(other, Silent())
    first, second = ImageTask(RED), ImageTask(RED)
    room.join(first)
    room.join(second)
    monkeypatch.setattr(other.pipeline.transformer, "forward", full)
    assert [task for task, _ in room.tick().failed] == [first]
    monkeypatch.undo()
    assert room.tick().finished == [second]


def test_a_scheduler_cannot_be_set_for_it(folder):
    with pytest.raises(ConfigError, match=r"model\.scheduler: got 'Euler'"):
        load(RuntimeConfig(model=ModelConfig(uri=f"file://{folder}", scheduler="Euler")))


async def test_a_prompt_that_the_pipeline_cuts_is_said(engine):
    long = replace(RED, prompt="x" * 100, negative_prompt="y" * 300)
    found = {each.message for each in (await updates(engine, long))[-1].warnings}
    says = "this model's {} reads the first {} and ignores the rest"
    assert found == {
        f"prompt: got 102 tokens: {says.format('tokenizer', 77)}",
        f"prompt: got 102 tokens: {says.format('tokenizer_2', 77)}",
        f"prompt: got 102 tokens: {says.format('tokenizer_3', 77)}",
        f"negative_prompt: got 302 tokens: {says.format('tokenizer', 77)}",
        f"negative_prompt: got 302 tokens: {says.format('tokenizer_2', 77)}",
        f"negative_prompt: got 302 tokens: {says.format('tokenizer_3', 77)}",
    }
    assert (await updates(engine, replace(RED, prompt="x" * 75)))[-1].warnings == ()


def test_a_tokenizer_other_than_clips_reads_what_the_pipeline_says(tokenizer):
    limits = PromptLimits(Cutting({"tokenizer": tokenizer, "tokenizer_2": T5Like(tokenizer), "vae": None}))
    both = limits.warnings(replace(RED, prompt="x" * 300))
    assert [each.message.split(": ")[2] for each in both] == [
        "this model's tokenizer reads the first 77 and ignores the rest",
        "this model's tokenizer_2 reads the first 256 and ignores the rest",
    ]
    assert len(list(limits.warnings(replace(RED, prompt="x" * 254)))) == 1


class Cutting:
    """A pipeline with a limit of its own, as SD3 and FLUX have it."""

    def __init__(self, components):
        self.components = components

    def __call__(self, prompt, max_sequence_length=256):
        raise NotImplementedError


class T5Like:
    """Encodes as CLIP's tokenizer, and is none."""

    model_max_length = 10**30

    def __init__(self, clip):
        self._clip = clip

    def __call__(self, text, **settings):
        return self._clip(text, **settings)


@pytest.mark.parametrize(
    ("guidance", "param"),
    [(1.0, "negative_prompt_ignored"), (4.0, None)],
    ids=["unguided", "guided"],
)
async def test_a_negative_prompt_that_the_pipeline_ignores_is_said(engine, guidance, param):
    found = await updates(engine, replace(RED, negative_prompt="blue", guidance=guidance))
    assert [each.code for each in found[-1].warnings] == ([param] if param else [])


def test_a_model_that_is_told_its_guidance_ignores_the_negative_prompt():
    assert not guided(diffusers.FluxPipeline.__new__(diffusers.FluxPipeline), replace(RED, guidance=4.0))
    assert guided(
        diffusers.QwenImagePipeline.__new__(diffusers.QwenImagePipeline), replace(RED, guidance=1.0)
    )


async def test_weights_are_refused_where_the_pipeline_reads_its_prompts_itself(engine):
    with pytest.raises(InvalidRequest, match="must be 'plain' with a StableDiffusion3Pipeline") as caught:
        await updates(engine, replace(RED, prompt_syntax="weighted"))
    assert caught.value.param == "prompt_syntax"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"schedule": ScheduleOptions("karras")}, "sigmas"),
        ({"schedule": ScheduleOptions(timestep_spacing="leading")}, "timestep_spacing"),
        ({"schedule": ScheduleOptions(rescale_betas_zero_snr=True)}, "rescale_betas_zero_snr"),
        ({"guidance_rescale": 0.5}, "guidance_rescale"),
    ],
    ids=str,
)
async def test_what_its_call_does_not_take_is_refused(engine, change, param):
    with pytest.raises(InvalidRequest, match=f"^{param}: got .* StableDiffusion3Pipeline") as caught:
        await updates(engine, replace(RED, **change))
    assert caught.value.param == param


async def test_what_its_call_takes_reaches_it(engine):
    usual, skipped = [(await updates(engine, replace(RED, clip_skip=each)))[-1].data for each in (None, 1)]
    assert usual != skipped
