# SPDX-License-Identifier: Apache-2.0
"""Names of layers, compared with the text conversion of diffusers."""

from types import SimpleNamespace

import diffusers
import pytest
import torch

from sd_runtime.engine.lora import targets
from sd_runtime.engine.lora.lora_files import Layer, LoraFile
from sd_runtime.errors import ModelInvalid

SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
# Layers by Stability's numbers, as kohya writes them: one of each kind and place.
STABILITY = [
    "input_blocks_1_0_in_layers_2",
    "input_blocks_2_0_emb_layers_1",
    "input_blocks_3_0_op",
    "input_blocks_4_0_skip_connection",
    "input_blocks_4_1_proj_in",
    "input_blocks_5_1_transformer_blocks_1_attn2_to_out_0",
    "input_blocks_6_0_op",
    "input_blocks_8_1_transformer_blocks_9_ff_net_0_proj",
    "middle_block_0_out_layers_3",
    "middle_block_1_transformer_blocks_3_attn1_to_q",
    "middle_block_2_in_layers_2",
    "output_blocks_0_0_skip_connection",
    "output_blocks_2_1_transformer_blocks_0_ff_net_2",
    "output_blocks_2_2_conv",
    "output_blocks_5_1_proj_out",
    "output_blocks_5_2_conv",
    "output_blocks_8_0_emb_layers_1",
]


@pytest.fixture(scope="module")
def sdxl():
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**SDXL)
    return SimpleNamespace(unet=unet)


def pair(name, module):
    rows, columns = module.weight.shape[0], module.weight[0].numel()
    tensors = {"down": torch.zeros(2, columns), "up": torch.zeros(rows, 2)}
    return LoraFile((Layer(name, "down", "up", 2, None),), tensors)


def converted(name):
    """The module that diffusers takes a kohya name for."""
    tensors = {f"{name}.lora_down.weight": torch.zeros(2, 2), f"{name}.lora_up.weight": torch.zeros(2, 2)}
    config = SimpleNamespace(layers_per_block=2)
    found, _ = diffusers.StableDiffusionXLPipeline.lora_state_dict(tensors, unet_config=config)
    key = next(each for each in found if ".down." in each)
    path = key.removeprefix("unet.").replace(".processor", "").replace("_lora.down.weight", "")
    return path.replace(".lora.down.weight", "").replace("to_out", "to_out.0")


@pytest.mark.parametrize("name", STABILITY)
def test_stabilitys_numbers_lead_to_the_layer_that_diffusers_finds(sdxl, name):
    wanted = converted(f"lora_unet_{name}")
    read = pair(f"lora_unet_{name}", sdxl.unet.get_submodule(wanted))
    (component,) = targets.by_component(sdxl, read).items()
    assert component[0] == "unet"
    assert set(component[1]) == {f"{wanted}.lora_A.weight", f"{wanted}.lora_B.weight"}


def test_every_layer_has_names_of_its_own(sdxl):
    """No name leads to two layers, in any spelling."""
    found = {}
    for name, target in targets._names(sdxl):
        assert found.setdefault(name, target) == target


@pytest.mark.parametrize(
    "name",
    [
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q",
        "base_model.model.unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
    ],
)
def test_every_trainers_spelling_is_known(sdxl, name):
    wanted = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    read = pair(name, sdxl.unet.get_submodule(wanted))
    assert f"{wanted}.lora_A.weight" in targets.by_component(sdxl, read)["unet"]


def test_a_layer_of_another_size_is_named(sdxl):
    read = pair("lora_unet_input_blocks_4_1_proj_in", sdxl.unet.conv_in)
    with pytest.raises(
        ModelInvalid, match=r"proj_in is for a layer of 36 inputs and 320 outputs: unet\.down"
    ):
        targets.by_component(sdxl, read)
