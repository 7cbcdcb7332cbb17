# SPDX-License-Identifier: Apache-2.0
"""The load of a pipeline from a folder, and the models that the loader refuses."""

import json
import shutil
from importlib.resources import files

import pytest

from sd_runtime.config import ModelConfig, RuntimeConfig
from sd_runtime.engine import device
from sd_runtime.engine.loader import load
from sd_runtime.engine.model import OwnDefaults
from sd_runtime.engine.sampling.schedulers import SCHEDULERS, name_of
from sd_runtime.errors import ModelUnavailable


def loaded(folder, **settings):
    return load(RuntimeConfig(model=ModelConfig(uri=f"file://{folder}", **settings)))


@pytest.fixture
def shapes(tmp_path):
    """A copy of the bundled model, to be broken."""
    folder = shutil.copytree(files("sd_runtime") / "models/shapes", tmp_path / "shapes")
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def test_cpu_computes_float32_whatever_was_asked_and_a_gpu_what_was(model):
    kind = device.best()
    asked = model.config.model.dtype
    assert asked != "float32"
    assert (model.device.kind, model.dtype) == (kind, "float32" if kind == "cpu" else asked)


@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_the_configured_scheduler_is_the_models(name):
    model = load(RuntimeConfig(model=ModelConfig(uri="bundled://shapes", scheduler=name)))
    assert name_of(model.pipeline.scheduler) == name
    assert model.pipeline.scheduler.config.prediction_type == "v_prediction"


def test_without_settings_of_its_own_a_model_has_the_usual_ones(shapes):
    assert loaded(shapes).defaults == OwnDefaults(64, 64, 25, 7.5)


def test_steps_and_guidance_come_from_the_models_folder(shapes):
    settings = {"num_inference_steps": 15, "guidance_scale": 4.0}
    (shapes / "generation_config.json").write_text(json.dumps(settings))
    assert loaded(shapes).defaults == OwnDefaults(64, 64, 15, 4.0)


@pytest.mark.parametrize("text", ["[]", "{", '{"num_inference_steps": "many"}'])
def test_settings_that_are_none_are_refused(shapes, text):
    (shapes / "generation_config.json").write_text(text)
    with pytest.raises(ModelUnavailable, match=r"generation_config.json: must be"):
        loaded(shapes)


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
    with pytest.raises(ModelUnavailable, match="cannot be loaded") as caught:
        loaded(shapes)
    assert repr(f"file://{shapes}") in str(caught.value)
    assert says in str(caught.value)


def test_weights_in_pickle_are_refused(shapes):
    """They run code when read."""
    weights = shapes / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelUnavailable, match="no file named diffusion_pytorch_model"):
        loaded(shapes)
