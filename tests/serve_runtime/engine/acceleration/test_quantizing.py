# SPDX-License-Identifier: Apache-2.0
"""Linear layers in float8 on a simulated GPU: torchao's own path, with products that a CPU can compute too.

Bounds are on the latents of whole images, as shares of their norm. docs/models.md has the measured values.
"""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import diffusers
import pytest
import torch
from safetensors.torch import save_file
from torchao.quantization import Float8Tensor, quant_api

from sd_runtime.config import LiveConfig, Lora, ModelConfig, Optimizations, RuntimeConfig, WarmupShape
from sd_runtime.engine import device
from sd_runtime.engine.acceleration import quantizing
from sd_runtime.engine.device import Device
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.interface import ImageRequest, Picture
from sd_runtime.engine.loader import load
from sd_runtime.engine.lora.lora_switch import Active
from sd_runtime.errors import ConfigError

RED = ImageRequest("a red circle on a white background", "", 64, 64, 15, 4.0, seed=1)
IMAGES = (
    RED,
    replace(RED, prompt="a blue square on a white background", seed=2),
    replace(RED, prompt="a green triangle on a black background", seed=3),
)
SMALL = (replace(RED, steps=6),)


@pytest.fixture
def ada(monkeypatch, cuda):
    """The device, which torchao takes for one that has float8."""
    monkeypatch.setattr(quant_api, "_check_hardware_support", lambda _: None)
    return cuda


def loaded(uri="bundled://shapes", *, fp8=True, dtype=None, graphs=False, **more):
    model = ModelConfig(uri=uri, dtype=dtype, quantization="fp8" if fp8 else None)
    optimizations = Optimizations(cuda_graphs=graphs, **more.pop("optimizations", {}))
    return load(RuntimeConfig(model=model, optimizations=optimizations, **more))


def quantized(model):
    """Names of the layers whose weights are."""
    return [
        name
        for name, module in model.pipeline.unet.named_modules()
        if isinstance(getattr(module, "weight", None), Float8Tensor)
    ]


def apart(found, wanted):
    return max(
        float((one.float().cpu() - other.float().cpu()).norm() / other.float().norm())
        for one, other in zip(found, wanted, strict=True)
    )


def test_images_are_within_3_percent_of_those_of_float32(ada, bench, model):
    """Bfloat16 alone is within 2 %."""
    exact = bench(model).latents(*IMAGES)
    half = bench(loaded(fp8=False)).latents(*IMAGES)
    found = bench(loaded()).latents(*IMAGES)
    assert 0 < apart(half, exact) <= 0.02
    assert apart(half, exact) < apart(found, exact) <= 0.03


@pytest.mark.parametrize("folder", ["tiny_folder", "xl_folder"])
def test_random_networks_are_within_5_percent(ada, bench, request, folder):
    uri = f"file://{request.getfixturevalue(folder)}"
    exact = bench(loaded(uri, fp8=False, dtype="float32")).latents(*SMALL)
    assert 0 < apart(bench(loaded(uri)).latents(*SMALL), exact) <= 0.05


def test_the_linear_layers_of_attention_blocks_are_quantized_and_no_other(ada):
    model = loaded()
    linear = {name for name, each in model.pipeline.unet.named_modules() if isinstance(each, torch.nn.Linear)}
    assert set(quantized(model)) == {name for name in linear if ".attentions." in name}
    assert linear - set(quantized(model)), "embeddings of the time"
    assert model.pipeline.unet.dtype is torch.bfloat16
    assert not any(isinstance(each, Float8Tensor) for each in model.pipeline.text_encoder.parameters())


@pytest.fixture
def ink(model, tmp_path):
    """A random LoRA of the bundled model."""
    torch.manual_seed(1)
    tensors = {}
    for name, module in model.pipeline.unet.named_modules():
        if name.endswith(("to_q", "to_v", "ff.net.2")):
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn(16, module.in_features) / 4
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn(module.out_features, 16) / 16
    save_file(tensors, tmp_path / "ink.safetensors")
    return (Lora(name="ink", uri=f"file://{tmp_path}/ink.safetensors"),)


def test_loras_act_over_quantized_layers_in_their_own_format(ada, bench, model, ink):
    exact, found = loaded(fp8=False, dtype="float32", loras=ink), loaded(loras=ink)
    styled = replace(RED, loras=("ink",))
    wanted = bench(exact).latents(styled)
    assert apart(wanted, bench(model).latents(RED)) > 0.04
    assert apart(bench(found).latents(styled), wanted) <= 0.03
    assert apart(bench(found).latents(RED), bench(model).latents(RED)) <= 0.03, "it is off again"
    assert any(name.endswith(".base_layer") for name in quantized(found))
    assert not any("lora_" in name for name in quantized(found))


def test_the_compilers_copy_of_a_network_shares_quantized_weights(ada, ink):
    """One copy for each set of LoRAs would fill the GPU."""
    model = loaded(loras=ink)
    copied = model.loras.copy_of(model.pipeline.unet, Active(("ink",)))
    for name in quantized(model):
        assert copied.get_submodule(name).weight is model.pipeline.unet.get_submodule(name).weight
    assert quantized(model)


def test_fused_projections_are_quantized(ada, bench, model):
    fused = loaded(optimizations={"fuse_qkv": True})
    assert any(name.endswith("to_qkv") for name in quantized(fused))
    assert apart(bench(fused).latents(RED), bench(model).latents(RED)) <= 0.03


def test_graphs_hold_quantized_layers(ada, bench):
    """Nothing of their scales is looked at by the host."""
    direct = bench(loaded()).latents(RED)
    model = loaded(graphs=True, warmup=(WarmupShape(width=64, height=64),))
    replayed = ada.replayed
    found = bench(model).latents(RED)
    assert ada.replayed == replayed + RED.steps
    assert apart(found, direct) == 0


def test_the_engine_draws_with_them(ada):
    async def drawn(engine):
        async with aclosing(engine.generate(replace(RED, steps=2))) as updates:
            return [update async for update in updates if isinstance(update, Picture)]

    engine = DiffusionEngine(loaded(), LiveConfig())
    try:
        assert engine.info().quantization == "fp8"
        assert len(asyncio.run(drawn(engine))) == 1
    finally:
        engine.close()


class Pipeline:
    """One that has a UNet and no more."""

    def __init__(self, unet):
        self.unet = unet


def block(*, zeros=False):
    """A network with an attention block of one linear layer, in bfloat16."""
    torch.manual_seed(0)
    unet = torch.nn.ModuleDict({"attentions": torch.nn.ModuleList([torch.nn.Linear(32, 48)])})
    layer = unet["attentions"][0].bfloat16().requires_grad_(requires_grad=False)
    layer.weight[3] *= 0 if zeros else 1
    return Pipeline(unet), layer


def test_rows_of_zeros_stay_finite(ada):
    """SDXL encodes an empty negative prompt so, and all its images would be NaN."""
    pipeline, layer = block()
    quantizing.quantize(pipeline, "fp8")
    assert isinstance(layer.weight, Float8Tensor)
    given = torch.randn(2, 5, 32).bfloat16()
    given[0] = 0
    found = layer(given)
    assert torch.equal(found[0], layer.bias.expand(5, 48))
    assert found.isfinite().all()


def test_a_layer_with_an_output_that_is_always_zero_stays_as_it_is(ada):
    pipeline, layer = block(zeros=True)
    with pytest.raises(ConfigError, match="needs linear layers"):
        quantizing.quantize(pipeline, "fp8")
    assert type(layer.weight) is torch.nn.Parameter


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")  # of diffusers
def test_quantized_layers_are_traced_whole_by_the_compiler(monkeypatch, tiny_folder):
    """What comes out is what the plain call gives; kernels are not made here."""
    monkeypatch.setattr(quant_api, "_check_hardware_support", lambda _: None)
    unet = diffusers.UNet2DConditionModel.from_pretrained(tiny_folder / "unet", torch_dtype=torch.bfloat16)
    quantizing.quantize(Pipeline(unet), "fp8")
    given = (torch.randn(2, 4, 8, 8).bfloat16(), torch.tensor([7.0, 9.0]), torch.randn(2, 77, 16).bfloat16())
    torch._dynamo.reset()
    traced = torch.compile(unet, backend="aot_eager", fullgraph=True, dynamic=False)
    with torch.inference_mode():
        wanted, found = unet(*given).sample, traced(*given).sample
    assert torch.equal(found, wanted)


def test_this_machine_computes_float8_or_refuses_it(bench, model):
    """With a GPU that has it, by the GPU's own kernels."""
    if Device(device.best()).has_float8():
        assert apart(bench(loaded()).latents(*IMAGES), bench(model).latents(*IMAGES)) <= 0.05
        return
    with pytest.raises(ConfigError, match=r"model\.quantization: got 'fp8': it needs a GPU"):
        loaded()


def test_a_cpu_is_refused():
    with pytest.raises(ConfigError, match="or more, and this device is a CPU"):
        quantizing.check("fp8", "float32", Device("cpu"))


@pytest.mark.parametrize(
    ("capability", "has"), [((8, 0), False), ((8, 9), True), ((9, 0), True), ((10, 0), True)]
)
def test_an_older_gpu_is_refused_by_its_name(monkeypatch, cuda, capability, has):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100")
    assert Device("cuda").has_float8() is has
    if not has:
        with pytest.raises(ConfigError, match=r"8\.9 or more, and this device is NVIDIA A100"):
            quantizing.check("fp8", "bfloat16", Device("cuda"))


def test_another_dtype_is_refused(ada):
    with pytest.raises(ConfigError, match=r"needs model\.dtype bfloat16, and model\.dtype is 'float16'"):
        loaded(dtype="float16")


def test_what_torchao_does_not_know_is_refused_in_its_words(cuda):
    with pytest.raises(ConfigError, match="is refused by torchao: AssertionError: Float8 dynamic"):
        loaded()


@pytest.mark.parametrize("unet", [None, torch.nn.Linear(16, 16), torch.nn.Conv2d(16, 16, 1)])
def test_a_network_without_such_layers_is_refused(unet):
    with pytest.raises(ConfigError, match=r"needs linear layers .* and a Pipeline has none"):
        quantizing.quantize(Pipeline(unet), "fp8")
