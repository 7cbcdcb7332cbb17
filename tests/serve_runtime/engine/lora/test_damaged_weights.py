# SPDX-License-Identifier: Apache-2.0
"""Randomly damaged weights: a model that starts follows its files, and every other is refused with a named error."""

import json
import shutil
from dataclasses import dataclass, replace
from importlib.resources import files

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from safetensors.torch import load_file, save_file

from sd_runtime.config import Lora, ModelConfig, RuntimeConfig
from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.loader import load
from sd_runtime.engine.lora import lora_files
from sd_runtime.errors import ModelInvalid, ModelUnavailable
from sd_runtime.startup import Startup

RED = ImageRequest("a red circle on a white background", "", 64, 64, 2, 4.0, seed=1)
COMPONENTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
EXAMPLES = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink an example loads the model for minutes
)


def shapes():
    return files("sd_runtime") / "models/shapes"


def bundled(**extra):
    return load(RuntimeConfig(model=ModelConfig(uri="bundled://shapes"), **extra))


@pytest.fixture
def drawn(bench):
    """The decoded picture of a model, values 0 to 1."""

    def draw(model, request=RED):
        (latents,) = bench(model).latents(request)
        with torch.inference_mode():
            return model.pipeline.vae.decode(latents / model.pipeline.vae.config.scaling_factor)[0]

    return draw


def same(one, other):
    return torch.allclose(one, other, atol=2e-3)


@dataclass(frozen=True)
class Damage:
    """One change of a file's tensors; `refused` where nothing may start with it."""

    kind: str
    first: int
    second: int
    factor: float

    refused = property(
        lambda self: self.kind in {"drop", "rename", "integer", "shape", "infinite", "unknown"}
    )

    def apply(self, tensors):
        """The name of the tensor that it is about."""
        names = sorted(name for name, value in tensors.items() if value.is_floating_point())
        name = names[self.first % len(names)]
        value = tensors[name]
        alike = [each for each in names if tensors[each].shape == value.shape]
        other = alike[self.second % len(alike)]
        if self.kind in {"drop", "rename"}:
            del tensors[name]
        if self.kind == "rename":
            tensors[f"{name}_old"] = value
        if self.kind == "unknown":
            tensors["somewhere.else.weight"] = value.clone()
        if self.kind == "swap":
            tensors[name], tensors[other] = tensors[other], value
        changed = {
            "scale": lambda: value * self.factor,
            "double": value.double,
            "half": value.half,
            "integer": lambda: value.to(torch.int32),
            "shape": lambda: torch.cat([value, value]) if value.dim() else torch.stack([value, value]),
            "infinite": lambda: torch.full_like(value, float("inf")),
        }
        if self.kind in changed:
            tensors[name] = changed[self.kind]().contiguous()
        return name


KINDS = ["drop", "rename", "unknown", "swap", "scale", "double", "half", "integer", "shape", "infinite"]
damages = st.builds(
    Damage,
    st.sampled_from(KINDS),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.5, 1.5, -1.0]),
)


@EXAMPLES
@given(component=st.sampled_from(sorted(COMPONENTS)), damage=damages)
def test_a_damaged_folder_is_refused_or_draws_what_it_holds(tmp_path_factory, drawn, component, damage):
    folder = shutil.copytree(shapes(), tmp_path_factory.mktemp("model") / "shapes")
    file = folder / component / COMPONENTS[component]
    tensors = load_file(file)
    name = damage.apply(tensors)
    save_file(tensors, file)
    configured = RuntimeConfig(model=ModelConfig(uri=f"file://{folder}"))
    if damage.refused:
        with pytest.raises(ModelInvalid) as caught:
            load(configured)
        assert f"{component}" in str(caught.value)
        assert (name if damage.kind != "unknown" else "somewhere.else.weight") in str(caught.value)
        return
    by_hand = bundled()
    by_hand.pipeline.components[component].load_state_dict(tensors)
    assert same(drawn(load(configured)), drawn(by_hand))


@EXAMPLES
@given(component=st.sampled_from(sorted(COMPONENTS)), share=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(tmp_path_factory, component, share):
    folder = shutil.copytree(shapes(), tmp_path_factory.mktemp("model") / "shapes")
    file = folder / component / COMPONENTS[component]
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(ModelUnavailable, match=f"{component}/{COMPONENTS[component]}"):
        load(RuntimeConfig(model=ModelConfig(uri=f"file://{folder}")))


def test_a_text_encoder_whose_names_lack_their_prefix_is_refused(tmp_path):
    """Not one tensor matches: it would be made up as a whole, and no prompt would mean anything."""
    folder = shutil.copytree(shapes(), tmp_path / "shapes")
    file = folder / "text_encoder/model.safetensors"
    save_file({f"other.{name}": value for name, value in load_file(file).items()}, file)
    with pytest.raises(ModelInvalid, match=r"text_encoder/model\.safetensors lacks .* and 33 more"):
        load(RuntimeConfig(model=ModelConfig(uri=f"file://{folder}")))


def test_position_ids_of_old_files_are_no_damage(tmp_path, drawn, model):
    folder = shutil.copytree(shapes(), tmp_path / "shapes")
    file = folder / "text_encoder/model.safetensors"
    length = load_file(file)["embeddings.position_embedding.weight"].shape[0]
    extra = {"text_model.embeddings.position_ids": torch.arange(length)[None]}
    tensors = {f"text_model.{name}": value for name, value in load_file(file).items()} | extra
    save_file(tensors, file)
    assert same(drawn(load(RuntimeConfig(model=ModelConfig(uri=f"file://{folder}")))), drawn(model))


def test_the_variant_is_taken_where_there_is_one(tmp_path, drawn, model):
    """And the plain file of a component that has no other."""
    folder = shutil.copytree(shapes(), tmp_path / "shapes")
    unet = folder / "unet" / COMPONENTS["unet"]
    unet.rename(unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    found = load(RuntimeConfig(model=ModelConfig(uri=f"file://{folder}", variant="fp16")))
    assert same(drawn(found), drawn(model))


# LoRAs

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.2", "conv1", "q_proj", "fc1")


@dataclass(frozen=True)
class Pair:
    """What a LoRA has for one layer."""

    rank: int
    alpha: float | None
    seed: int

    def matrices(self, weight):
        made = torch.Generator().manual_seed(self.seed)
        down = torch.randn((self.rank, *weight.shape[1:]), generator=made) * 0.05
        up = torch.randn((weight.shape[0], self.rank, *[1] * (weight.dim() - 2)), generator=made) * 0.05
        return down, up

    @property
    def scale(self):
        return 1.0 if self.alpha is None else self.alpha / self.rank


pairs = st.builds(
    Pair, st.integers(1, 16), st.one_of(st.none(), st.sampled_from([0.5, 1, 2, 4, 8])), st.integers(0, 99)
)


def layers_of(pipeline):
    """Layers that trainers train, by their names in kohya's files and in peft's."""
    for component, prefix in (("unet", "lora_unet"), ("text_encoder", "lora_te")):
        for name, module in getattr(pipeline, component).named_modules():
            if name.endswith(TARGETS):
                # Files have the text encoder's names as transformers 4 had them.
                inside = name if component == "unet" else f"text_model.{name}"
                yield (
                    f"{prefix}_{inside.replace('.', '_')}",
                    f"{component}.{inside}",
                    module.weight,
                )


def kohya(chosen, weights):
    tensors = {}
    for name, (pair, weight) in chosen.items():
        down, up = pair.matrices(weight)
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        if pair.alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(float(pair.alpha))
    return tensors


def merged(model, tensors, scales, weights):
    """Add alpha / rank x up x down to the weights of a model, by hand."""
    with torch.no_grad():
        for name, scale in scales.items():
            up, down = tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"]
            delta = up.flatten(1).float() @ down.flatten(1).float()
            weights[name] += scale * delta.reshape(weights[name].shape)
    return model


LORA_KINDS = [None, "drop", "rename", "swap", "scale", "double", "half", "integer", "shape", "infinite"]
lora_damages = st.builds(
    Damage,
    st.sampled_from(LORA_KINDS),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.sampled_from([0.5, 1.5, -1.0]),
)


@pytest.mark.parametrize("tensor", ["alpha", "lora_down.weight", "lora_up.weight"])
@pytest.mark.parametrize("kind", ["rename", "integer", "rank", "infinite"])
def test_each_damaged_tensor_of_a_lora_is_named(tmp_path, kind, tensor):
    weights = {name: weight for name, _, weight in layers_of(bundled().pipeline)}
    layer = min(weights)
    tensors = kohya({layer: (Pair(4, 0.5, 7), weights[layer])}, weights)
    name = f"{layer}.{tensor}"
    if kind == "rank":
        tensors[name] = torch.stack([tensors[name]] * 2)
    else:
        Damage(kind, sorted(tensors).index(name), 0, 1.0).apply(tensors)
    file = tmp_path / "ink.safetensors"
    save_file(tensors, file)
    with pytest.raises(ModelInvalid, match=layer):
        lora_files.read(file)


@EXAMPLES
@given(data=st.data(), damage=lora_damages)
def test_a_lora_acts_at_its_own_scale_or_is_refused(tmp_path_factory, drawn, data, damage):
    """Ranks and alphas differ from layer to layer, as `resize_lora --dynamic` makes them."""
    by_hand = bundled()
    named = {name: weight for name, _, weight in layers_of(by_hand.pipeline)}
    wanted = data.draw(st.dictionaries(st.sampled_from(sorted(named)), pairs, min_size=1, max_size=32))
    tensors = kohya({name: (pair, named[name]) for name, pair in wanted.items()}, named)
    before = dict(tensors)
    name = damage.apply(tensors) if damage.kind else ""
    about, alpha = name.partition(".")[0], name.endswith(".alpha")
    file = tmp_path_factory.mktemp("lora") / "ink.safetensors"
    save_file({name: value.clone() for name, value in tensors.items()}, file)
    startup = Startup()
    model = load(
        RuntimeConfig(
            model=ModelConfig(uri="bundled://shapes"), loras=(Lora(name="ink", uri=f"file://{file}"),)
        ),
        startup,
    )
    refused = startup.report().refused_loras
    if refused:
        assert damage.refused or damage.kind == "swap", refused
        assert damage.kind == "swap" or about in refused["ink"] or about.rpartition("_")[2] in refused["ink"]
        return
    # Without its alpha a layer acts at 1, and an alpha may be a whole number.
    assert not damage.refused or (alpha and damage.kind in {"drop", "integer"})
    scales = {
        name: 1.0
        if f"{name}.alpha" not in tensors
        else float(tensors[f"{name}.alpha"]) / len(tensors[f"{name}.lora_down.weight"])
        for name in wanted
    }
    assert before.keys() == tensors.keys() or damage.kind in {"drop", "rename"}
    merged(by_hand, tensors, scales, named)
    found = drawn(model, replace(RED, loras=("ink",)))
    assert same(found, drawn(by_hand))


@pytest.mark.parametrize("metadata", [True, False], ids=["alpha in the metadata", "no alpha"])
def test_pefts_own_files_act_as_peft_scales_them(tmp_path, drawn, metadata):
    by_hand = bundled()
    found = {peft: weight for _, peft, weight in layers_of(by_hand.pipeline) if "attn" in peft}
    pair = Pair(4, None, 7)
    tensors, said = {}, {"unet.r": 4, "unet.lora_alpha": 12.0, "unet.alpha_pattern": {"attn1.to_q": 2.0}}
    for name, weight in found.items():
        if name.startswith("unet."):
            down, up = pair.matrices(weight)
            tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
            scale = (0.5 if name.endswith("attn1.to_q") else 3.0) if metadata else 1.0
            with torch.no_grad():
                weight.add_(scale * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape))
    file = tmp_path / "ink.safetensors"
    save_file(tensors, file, {"lora_adapter_metadata": json.dumps(said)} if metadata else None)
    model = bundled(loras=(Lora(name="ink", uri=f"file://{file}", strength=1.0),))
    assert same(drawn(model, replace(RED, loras=("ink",))), drawn(by_hand))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (4, 4)}, "hada_w1_a"),
        ({"lora_unet_mid_block_attentions_0_proj_in.lokr_w1": (4, 4)}, "lokr_w1"),
        ({"unet.nowhere.to_q.lora_A.weight": (2, 96), "unet.nowhere.to_q.lora_B.weight": (96, 2)}, "nowhere"),
        ({}, "no layers"),
    ],
    ids=["LoHa", "LoKr", "a layer that the model lacks", "an empty file"],
)
def test_what_cannot_be_applied_is_named(tmp_path, names, says):
    file = tmp_path / "odd.safetensors"
    save_file({name: torch.ones(shape) for name, shape in names.items()}, file)
    startup = Startup()
    config = RuntimeConfig(
        model=ModelConfig(uri="bundled://shapes"), loras=(Lora(name="odd", uri=f"file://{file}"),)
    )
    load(config, startup)
    assert says in startup.report().refused_loras["odd"]
