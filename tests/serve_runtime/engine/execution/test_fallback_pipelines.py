# SPDX-License-Identifier: Apache-2.0
"""Pipelines without a native denoising loop, tiny and random.

One that cannot generate reports the reason before it is ready.
"""

import json
import shutil
from dataclasses import replace
from importlib.resources import files

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from sd_runtime.config import LiveConfig, ModelConfig, RuntimeConfig
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.interface import ImageRequest, Picture, Progress
from sd_runtime.engine.loader import load
from sd_runtime.errors import InvalidRequest, ModelInvalid, ModelUnavailable

RED = ImageRequest("a red circle", "", 64, 64, 2, 3.5, seed=1)


def loaded(folder):
    return load(RuntimeConfig(model=ModelConfig(uri=f"file://{folder}")))


@pytest.fixture(scope="module")
def flux_folder(tmp_path_factory, tokenizer, text_encoder, vae):
    torch.manual_seed(0)
    pipeline = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae(4, shift_factor=0.1, scaling_factor=0.3, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=text_encoder(transformers.CLIPTextModel),
        tokenizer=tokenizer,
        text_encoder_2=transformers.T5EncoderModel(
            transformers.T5Config(
                vocab_size=len(tokenizer), d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=2
            )
        ),
        tokenizer_2=tokenizer,
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            axes_dims_rope=(2, 2, 4),
        ),
    )
    folder = tmp_path_factory.mktemp("flux")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def flux(flux_folder):
    return loaded(flux_folder)


async def drawn(model, request):
    engine = DiffusionEngine(model, LiveConfig())
    try:
        return [update async for update in engine.generate(request)]
    finally:
        engine.close()


async def test_flux_draws(flux):
    """Its transformer has no sample size, and it comes with defaults of its own."""
    assert isinstance((await drawn(flux, RED))[-1], Picture)
    assert (flux.defaults.width, flux.defaults.height) == (1024, 1024)
    assert (flux.defaults.steps, flux.defaults.guidance) == (28, 3.5)
    assert flux.batching == "none"


async def test_a_size_that_the_pipeline_would_round_is_refused(flux):
    """FLUX draws 64 where 72 is asked for, and warns nobody."""
    with pytest.raises(InvalidRequest, match="width: got 72: must be a multiple of 16"):
        await drawn(flux, replace(RED, width=72))


async def test_a_size_that_comes_out_otherwise_is_no_success(flux, monkeypatch):
    monkeypatch.setattr("sd_runtime.engine.diffusion_engine.side_multiple", lambda _: 8)
    with pytest.raises(InvalidRequest, match="size: got 72x64: the model's pipeline generates 64x64 instead"):
        await drawn(flux, replace(RED, width=72))


async def test_what_the_pipeline_itself_refuses_is_the_clients_error(flux, monkeypatch):
    def check_inputs(*_, **__):
        raise ValueError("`height` has to be divisible by 32")

    monkeypatch.setattr(type(flux.pipeline), "check_inputs", check_inputs)
    with pytest.raises(
        InvalidRequest, match="rejects the request: ValueError: `height` has to be divisible by 32"
    ):
        await drawn(flux, RED)


async def test_a_request_that_waits_learns_its_place_while_another_is_drawn(flux):
    """An image may take minutes, and a connection that says nothing for one is cut."""
    engine = DiffusionEngine(flux, LiveConfig())
    first = engine.generate(replace(RED, steps=400))
    assert isinstance(await anext(first), Progress)
    second = engine.generate(RED)
    told = await anext(second)
    assert (told.ahead, told.step) == (1, 0)
    await first.aclose()
    assert isinstance([update async for update in second][-1], Picture)
    engine.close()


@pytest.fixture
def shapes(tmp_path):
    """A copy of the bundled model, to be made another pipeline's."""
    return shutil.copytree(files("sd_runtime") / "models/shapes", tmp_path / "shapes")


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("StableDiffusionInpaintPipeline", "it is for inpainting"),
        ("StableDiffusionImg2ImgPipeline", "it is for image-to-image"),
        ("StableDiffusionDepth2ImgPipeline", "cannot be loaded"),
        ("StableDiffusionInstructPix2PixPipeline", "cannot generate an image of 64x64"),
    ],
)
def test_a_pipeline_that_needs_more_than_a_prompt_is_refused_at_its_start(shapes, kind, says):
    change(shapes / "model_index.json", _class_name=kind)
    with pytest.raises(ModelUnavailable, match=says):
        loaded(shapes)


def test_the_refiner_is_refused_at_its_start(tmp_path, xl_folder):
    folder = shutil.copytree(xl_folder, tmp_path / "refiner")
    change(folder / "model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline")
    with pytest.raises(ModelInvalid, match=r"StableDiffusionXLImg2ImgPipeline .* image-to-image"):
        loaded(folder)


def test_weights_that_draw_no_numbers_are_refused_at_the_start(shapes):
    """Each is finite, and what comes of them is not: every request would be answered 500."""
    file = shapes / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)  # in half precision
    tensors["conv_out.weight"] = tensors["conv_out.weight"].float() * 1e38
    save_file(tensors, file)
    with pytest.raises(ModelInvalid, match=r"model\.uri: got .*: the image contains NaN values"):
        loaded(shapes)


@pytest.mark.parametrize(("size", "found"), [([8, 8], (64, 64)), ([8, 16], (64, 128)), (None, (512, 512))])
def test_the_size_may_be_a_pair_or_missing(shapes, size, found):
    change(shapes / "unet/config.json", sample_size=size)
    defaults = loaded(shapes).defaults
    assert (defaults.height, defaults.width) == found
