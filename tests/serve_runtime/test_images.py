# SPDX-License-Identifier: Apache-2.0
import io
from dataclasses import replace

import pytest
from PIL import Image

from sd_runtime.config import ModelConfig, Provenance
from sd_runtime.engine import ImageRequest, Output
from sd_runtime.images import encode, parameters, size
from sd_runtime.provenance import parameters as provenance
from sd_runtime.schedule_options import ScheduleOptions

GIVEN = {"prompt": "ein roter Kreis 🔴", "seed": 2**53 - 1}
FORMATS = ("png", "jpeg", "webp")


@pytest.mark.parametrize("name", FORMATS)
def test_parameters_survive_in_the_file(name):
    data = encode(Image.new("RGB", (64, 64), "red"), Output(name), GIVEN)
    assert parameters(data) == GIVEN
    image = Image.open(io.BytesIO(data))
    assert image.format == name.upper()
    assert image.getpixel((1, 1))[0] > 250
    assert size(data) == "64x64"


@pytest.mark.parametrize("name", ["jpeg", "webp"])
@pytest.mark.parametrize("compression", [0, 50, 100])
def test_every_compression_makes_a_file(name, compression):
    noise = Image.effect_noise((64, 64), 100).convert("RGB")
    sizes = [len(encode(noise, Output(name, each), GIVEN)) for each in (compression, 100)]
    assert sizes[0] <= sizes[1]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("text", ["x" * 32000, "\n" * 32000, "\0" * 32000, "🔴" * 32000], ids=repr)
def test_the_longest_prompts_still_make_a_file(name, text):
    """EXIF holds 64 KiB; what does not fit is told by its hash alone."""
    request = ImageRequest(prompt=text, negative_prompt=text, seed=5)
    told = provenance(
        request, seed=5, model=ModelConfig(uri="bundled://shapes"), settings=Provenance(prompt=True)
    )
    found = parameters(encode(Image.new("RGB", (64, 64)), Output(name), told))
    assert found["seed"] == 5
    assert found["prompt_sha256"] == told["prompt_sha256"]
    assert ("prompt" in found) == (name == "png")


def test_prompts_are_told_only_where_the_settings_say_so():
    model = ModelConfig(uri="hf://a/b", revision="0" * 40)
    request = ImageRequest(prompt="a secret", seed=5, count=2, steps=9, guidance=4.0, id="mine")
    told = provenance(request, seed=6, model=model, settings=Provenance())
    assert "secret" not in str(told)
    assert told | {"seed": 6, "steps": 9, "guidance": 4.0, "request_id": "mine"} == told
    assert (told["model"], told["revision"]) == ("hf://a/b", "0" * 40)
    told = provenance(request, seed=6, model=model, settings=Provenance(prompt=True))
    assert told["prompt"] == "a secret"


def test_every_option_is_told():
    request = ImageRequest(
        prompt="a",
        schedule=ScheduleOptions("karras", "trailing", rescale_betas_zero_snr=True),
        guidance_rescale=0.7,
        clip_skip=1,
        loras=("ink", "oil"),
        lora_strengths=(("ink", 0.5),),
        prompt_syntax="weighted",
    )
    told = provenance(request, seed=6, model=ModelConfig(uri="bundled://shapes"), settings=Provenance())
    expected = {
        "sigmas": "karras",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "guidance_rescale": 0.7,
        "clip_skip": 1,
        "loras": ["ink", "oil"],
        "lora_strengths": {"ink": 0.5},
        "prompt_syntax": "weighted",
    }
    assert told | expected == told


def test_the_file_of_a_seeded_request_has_no_request_id():
    model, settings = ModelConfig(uri="bundled://shapes"), Provenance()
    request = ImageRequest(prompt="a", id="one", seeded=True)
    first, second = (
        provenance(each, seed=0, model=model, settings=settings)
        for each in (request, replace(request, id="two"))
    )
    assert first == second
