# SPDX-License-Identifier: Apache-2.0
"""LoRAs made by the tests for the bundled model: each request gets its own set, and no other."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from sd_runtime import weights
from sd_runtime.config import LiveConfig, Lora, ModelConfig, Optimizations, RuntimeConfig
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.interface import ImageRequest, Picture
from sd_runtime.engine.loader import load
from sd_runtime.engine.lora import lora_switch
from sd_runtime.errors import InvalidRequest, ModelUnavailable
from sd_runtime.startup import Startup

RED = ImageRequest("a red circle on a white background", "", 64, 64, 4, 4.0, seed=1)


def make(folder, name, seed, *, text=False):
    """A random LoRA of the bundled model's UNet, and of its text encoder if asked."""
    torch.manual_seed(seed)
    pipeline = load(RuntimeConfig(model=ModelConfig(uri="bundled://shapes"))).pipeline
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = {"unet_lora_layers": get_peft_model_state_dict(pipeline.unet)}
    if text:
        pipeline.text_encoder.add_adapter(
            LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        )
        layers["text_encoder_lora_layers"] = get_peft_model_state_dict(pipeline.text_encoder)
    pipeline.save_lora_weights(folder, **layers, weight_name=f"{name}.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("loras")
    make(found, "ink", 1)
    make(found, "oil", 2, text=True)
    return found


def config(*wanted, **settings):
    return RuntimeConfig(model=ModelConfig(uri="bundled://shapes"), loras=wanted, **settings)


def lora(folder, name, **settings):
    return Lora(name=name, uri=f"file://{folder}/{name.partition('.')[0]}.safetensors", **settings)


@pytest.fixture(scope="module")
def styled(folder):
    return load(config(lora(folder, "ink", strength=0.8), lora(folder, "oil")))


def styles():
    return [replace(RED, loras=names) for names in ((), ("ink",), ("oil",), ("ink", "oil"))]


def apart(one, other):
    return (one - other).abs().max() > 1e-3


def same(one, other):
    return (one - other).abs().max() <= 1e-4


def test_each_set_draws_otherwise_and_none_is_the_bare_model(bench, model, styled):
    found = [bench(styled).latents(request)[0] for request in styles()]
    assert all(apart(one, other) for place, one in enumerate(found) for other in found[:place])
    assert same(found[0], bench(model).latents(RED)[0])


def test_mixed_sets_at_the_same_time_change_nothing(bench, styled):
    alone = [bench(styled).latents(request)[0] for request in styles()]
    together = bench(styled).latents(*styles(), *styles())
    assert all(same(one, other) for one, other in zip(alone * 2, together, strict=True))


def test_a_lora_draws_as_in_the_stock_pipeline(bench, styled):
    for name, inside, strength in (("ink", "adapter0", 0.8), ("oil", "adapter1", 1.0)):
        runner = bench(styled)
        (found,) = runner.latents(replace(RED, loras=(name,)))
        pipeline = styled.pipeline
        pipeline.set_adapters([inside], [strength])
        stock = runner.stock(RED)
        assert same(found, stock)


def test_other_loaded_loras_have_no_part(bench, folder, styled):
    only = load(config(lora(folder, "ink", strength=0.8)))
    request = replace(RED, loras=("ink",))
    bench(styled).latents(replace(RED, loras=("oil",)))
    assert same(bench(styled).latents(request)[0], bench(only).latents(request)[0])


def test_strength_comes_from_the_configuration(bench, folder, styled):
    weak = load(config(lora(folder, "ink", strength=0.0)))
    assert same(bench(weak).latents(replace(RED, loras=("ink",)))[0], bench(styled).latents(RED)[0])


@pytest.mark.parametrize("strength", [0.0, 0.3, -1.5])
def test_a_request_chooses_the_strength(bench, styled, strength):
    runner = bench(styled)
    wanted = replace(RED, loras=("ink", "oil"), lora_strengths=(("oil", strength),))
    (alone,) = runner.latents(wanted)
    usual, together = runner.latents(replace(wanted, lora_strengths=()), wanted)
    styled.pipeline.set_adapters(["adapter0", "adapter1"], [0.8, strength])
    stock = bench(styled).stock(RED)
    assert same(alone, stock)
    assert same(together, stock)
    assert apart(usual, stock)


def test_strengths_of_a_call_are_one(bench, styled, unet_calls):
    runner, rows = bench(styled), unet_calls(styled)
    ink = replace(RED, loras=("ink",))
    runner.latents(ink, replace(ink, lora_strengths=(("ink", 0.5),)), replace(ink, seed=2))
    assert sorted(rows) == [2] * 4 + [4] * 4


def test_the_configured_strength_is_no_other_one(styled):
    assert styled.loras.changed((("oil", 1.0), ("ink", 0.5))) == (("ink", 0.5),)


@pytest.fixture
def switched(monkeypatch):
    """The kind of network and the adapters of each switch from now on."""
    found = []
    switch = lora_switch.set_weights_and_activate_adapters

    def noted(network, names, strengths):
        found.append((type(network).__name__, names, strengths))
        switch(network, names, strengths)

    monkeypatch.setattr(lora_switch, "set_weights_and_activate_adapters", noted)
    return found


def test_the_set_is_switched_only_when_it_changes(bench, styled, switched):
    runner = bench(styled)
    runner.latents(RED)
    switched.clear()
    runner.latents(*(replace(RED, loras=("ink",), seed=seed) for seed in range(3)))
    unets = [each for each in switched if each[0] == "UNet2DConditionModel"]
    assert unets == [("UNet2DConditionModel", ["adapter0"], [0.8])]


def test_text_encoders_and_unet_are_switched_apart(bench, styled, switched):
    """The next image is prepared under its set while the UNet computes another one: neither disturbs the other."""
    alone = [bench(styled).latents(request)[0] for request in styles()]
    runner, found = bench(styled), []
    for request in styles():
        found += runner.join(request)
        runner.runner.tick()  # of the images before, under their sets
    assert runner.run() == []
    assert all(same(one, each.trajectory.latents) for one, each in zip(alone, found, strict=True))
    assert {name for name, _, _ in switched} == {"UNet2DConditionModel", "CLIPTextModel"}


@pytest.mark.parametrize("network", ["unet", "text_encoder"])
def test_a_set_that_cannot_be_switched_on_fails_its_own_pictures(bench, styled, monkeypatch, network):
    runner = bench(styled)
    switch, broken = lora_switch.set_weights_and_activate_adapters, getattr(styled.pipeline, network)

    def refuse(switched, *settings):
        if switched is broken:
            raise ValueError("no")
        switch(switched, *settings)

    runner.latents(RED)
    monkeypatch.setattr(lora_switch, "set_weights_and_activate_adapters", refuse)
    bare, styled_image = runner.join(RED, replace(RED, loras=("oil",)))
    ((failed, _),) = runner.run()
    assert failed is styled_image
    monkeypatch.undo()
    assert same(bare.trajectory.latents, bench(styled).latents(RED)[0])
    assert apart(bench(styled).latents(replace(RED, loras=("oil",)))[0], bare.trajectory.latents)


async def test_the_engine_offers_them_by_name(styled):
    engine = DiffusionEngine(styled, LiveConfig())
    assert engine.info().loras == ("ink", "oil")
    found = [update async for update in engine.generate(replace(RED, loras=("oil",)))]
    assert isinstance(found[-1], Picture)
    engine.close()


def test_fused_projections_give_way_to_loras(folder, model):
    tuned = load(config(lora(folder, "ink"), optimizations=Optimizations(fuse_qkv=True))).tuned
    assert tuned.effective["fuse_qkv"] is False


def test_a_name_with_a_dot_works(bench, folder):
    dotted = load(config(lora(folder, "ink.v2")))
    assert bench(dotted).latents(replace(RED, loras=("ink.v2",)))


def test_the_only_file_of_a_folder_is_the_lora(tmp_path, bench):
    make(tmp_path, "any", 3)
    found = load(config(Lora(name="any", uri=f"file://{tmp_path}")))
    assert bench(found).latents(replace(RED, loras=("any",)))


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file://{folder}/none.safetensors", "there is no none.safetensors"),
        ("file://{folder}", "name the file"),
        ("file:///nowhere/a.safetensors", "there is no folder"),
        ("file://{folder}/broken.safetensors", "does not fit the model"),
        ("file://{folder}/foreign.safetensors", "lora.somewhere.else.weight cannot be applied"),
        ("s3://bucket/a.safetensors", "must start with"),
    ],
)
async def test_a_bad_lora_keeps_its_name_from_being_used(tmp_path, folder, uri, says, lines):
    """And leaves the service up, with the reason where people look for it."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    save_file({"lora.somewhere.else.weight": torch.ones(2)}, tmp_path / "foreign.safetensors")
    startup = Startup()
    bad = Lora(name="bad", uri=uri.format(folder=tmp_path))
    model = load(config(bad, lora(folder, "ink")), startup)
    (name,) = startup.report().refused_loras
    words = startup.report().refused_loras[name]
    assert name == "bad"
    assert words.startswith("loras: bad: got ")
    assert says in words
    assert any(words in line["message"] for line in lines())
    engine = DiffusionEngine(model, LiveConfig())
    assert engine.info().loras == ("ink",)
    with pytest.raises(InvalidRequest, match="cannot be used"):
        await anext(engine.generate(replace(RED, loras=("bad",))))
    engine.close()


def test_a_source_that_does_not_answer_fails_the_start(monkeypatch, folder):
    """Another try may help, and replicas with different LoRAs would answer at random."""

    def fetch(_):
        raise ModelUnavailable("no answer")

    monkeypatch.setattr(weights, "fetch_lora", fetch)
    with pytest.raises(ModelUnavailable, match="no answer"):
        load(config(lora(folder, "ink")))


@pytest.mark.parametrize("name", ["pop", "keys", "weight", "lora_a", "default", "a.b", "a_dot_b"])
def test_every_name_is_free(bench, folder, name):
    """Also one that is an attribute of a dictionary of modules."""
    file = folder / "ink.safetensors"
    named = load(config(Lora(name=name, uri=f"file://{file}"), lora(folder, "oil")))
    (found,) = bench(named).latents(replace(RED, loras=(name,)))
    assert same(found, bench(load(config(lora(folder, "ink")))).latents(replace(RED, loras=("ink",)))[0])
