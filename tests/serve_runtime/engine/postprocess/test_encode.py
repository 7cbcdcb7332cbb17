# SPDX-License-Identifier: Apache-2.0
import io
import json
import re
from dataclasses import replace

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sd_runtime import __version__
from sd_runtime.config import ModelConfig, Provenance
from sd_runtime.engine.interface import ImageRequest, Output
from sd_runtime.engine.postprocess.encode import encode, parameters, size
from sd_runtime.engine.postprocess.provenance import parameters as provenance
from sd_runtime.engine.schedule_options import ScheduleOptions

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


def read_infotext(text):
    """Prompt, negative prompt and settings, as AUTOMATIC1111's reader finds them."""
    *lines, last = text.strip().split("\n")
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert len(pairs) >= 3, "fewer, and the reader takes the line for a part of the prompt"
    settings = {name: json.loads(value) if value.startswith('"') else value for name, value in pairs}
    prompt = "\n".join(lines)
    words, _, negative = prompt.partition("Negative prompt: ")
    return words.strip(), negative.strip(), settings


def infotext_of(data):
    image = Image.open(io.BytesIO(data))
    if image.format == "PNG":
        return image.text["parameters"]
    comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"UNICODE\0")
    return comment[8:].decode("utf-16-be")


ASKED = ImageRequest(
    prompt="ein Kreis, rot: 🔴\nzweite Zeile",
    negative_prompt="text, blur",
    width=64,
    height=128,
    steps=9,
    guidance=4.5,
    scheduler="DPMSolverMultistepSDE",
    schedule=ScheduleOptions(sigmas="karras"),
    clip_skip=1,
    loras=("ink", "oil"),
    lora_strengths=(("oil", 0.5),),
)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tells_prompt", [True, False])
def test_galleries_read_how_it_was_made(name, tells_prompt):
    told = provenance(
        ASKED,
        seed=7,
        model=ModelConfig(uri="hf://a/b", revision="0" * 40),
        settings=Provenance(prompt=tells_prompt),
    )
    data = encode(Image.new("RGB", (64, 128)), Output(name), told)
    prompt, negative, settings = read_infotext(infotext_of(data))
    assert (prompt, negative) == ((ASKED.prompt, ASKED.negative_prompt) if tells_prompt else ("", ""))
    assert settings == {
        "Steps": "9",
        "Sampler": "DPM++ 2M SDE",
        "Schedule type": "Karras",
        "CFG scale": "4.5",
        "Seed": "7",
        "Size": "64x128",
        "Clip skip": "2",
        "Model": "hf://a/b",
        "Model revision": "0" * 40,
        "LoRA": "ink, oil:0.5",
        "Version": f"sd-runtime {__version__}",
    }
    assert parameters(data) == told
    assert ("Kreis" in infotext_of(data)) == tells_prompt


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_earlier_releases_are_read_as_well(name):
    """They have JSON where galleries look for infotext."""
    target, image, text = io.BytesIO(), Image.new("RGB", (8, 8)), json.dumps(GIVEN, ensure_ascii=False)
    if name == "png":
        chunk = PngInfo()
        chunk.add_itxt("parameters", text)
        image.save(target, format="PNG", pnginfo=chunk)
    else:
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-le")
        image.save(target, format=name.upper(), exif=exif)
    assert parameters(target.getvalue()) == GIVEN


def test_a_photograph_has_no_parameters():
    target = io.BytesIO()
    Image.new("RGB", (8, 8)).save(target, format="JPEG")
    with pytest.raises(KeyError):
        parameters(target.getvalue())
