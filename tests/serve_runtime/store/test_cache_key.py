# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from sd_runtime.config import Lora, ModelConfig, Provenance, RuntimeConfig
from sd_runtime.engine.interface import ImageRequest, Output
from sd_runtime.engine.schedule_options import ScheduleOptions
from sd_runtime.store.cache_key import fingerprint, matches

CONFIG = RuntimeConfig(
    model=ModelConfig(uri="hf://a/b", revision="0" * 40), loras=(Lora(name="ink", uri="file:///ink"),)
)
REQUEST = ImageRequest(prompt="a", seed=7, seeded=True)


def of(request=REQUEST, config=CONFIG, provenance=None):
    return fingerprint(request, config, provenance or Provenance())


@pytest.mark.parametrize(
    "other",
    [
        of(replace(REQUEST, seed=8)),
        of(replace(REQUEST, width=64)),
        of(replace(REQUEST, scheduler="DDIM")),
        of(replace(REQUEST, loras=("ink",))),
        of(replace(REQUEST, prompt_syntax="weighted")),
        of(replace(REQUEST, schedule=ScheduleOptions(sigmas="karras"))),
        of(replace(REQUEST, schedule=ScheduleOptions(timestep_spacing="leading"))),
        of(replace(REQUEST, schedule=ScheduleOptions(rescale_betas_zero_snr=True))),
        of(replace(REQUEST, guidance_rescale=0.5)),
        of(replace(REQUEST, clip_skip=1)),
        of(replace(REQUEST, output=Output("jpeg"))),
        of(config=CONFIG.model_copy(update={"model": ModelConfig(uri="hf://a/b", revision="1" * 40)})),
        of(
            config=CONFIG.model_copy(
                update={"model": CONFIG.model.model_copy(update={"quantization": "fp8"})}
            )
        ),
        of(provenance=Provenance(prompt=True)),
    ],
)
def test_what_changes_the_file_changes_it(other):
    assert other != of()


def test_what_does_not_change_the_file_leaves_it():
    assert of(replace(REQUEST, id="mine", output=Output(previews=3))) == of()
    assert of(config=CONFIG.model_copy(update={"loras": (Lora(name="ink", uri="file:///other"),)})) == of()


def test_a_lora_that_changes_changes_its_pictures_alone():
    changed = CONFIG.model_copy(update={"loras": (Lora(name="ink", uri="file:///other"),)})
    asked = replace(REQUEST, loras=("ink",))
    assert of(asked, changed) != of(asked)
    assert of(replace(asked, lora_strengths=(("ink", 0.5),))) != of(asked)


@pytest.mark.parametrize("header", ['"x"', 'W/"x"', '"a", "x"', "*"])
def test_header_that_names_the_tag(header):
    assert matches(header, '"x"')


@pytest.mark.parametrize("header", ["", "x", '"y"'])
def test_header_that_does_not(header):
    assert not matches(header, '"x"')
