# SPDX-License-Identifier: Apache-2.0
"""Finds the layer of a model for each layer of a LoRA file, whichever naming the trainer used.

The possible names are derived from the model's own modules, never guessed from the file. So a layer is either found or
refused. Three spellings are in use; here they name the same layer of an SDXL UNet:

- diffusers and peft: `unet.down_blocks.1.attentions.0.proj_in`, with `processor` in the middle in old files;
- kohya: `lora_unet_down_blocks_1_attentions_0_proj_in`;
- kohya for SDXL: `lora_unet_input_blocks_4_1_proj_in`, by the block numbers of Stability's code.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sd_runtime.engine.failures import listed
from sd_runtime.engine.lora.lora_files import Layer, LoraFile, Tensors
from sd_runtime.errors import ModelInvalid

# The prefixes of kohya's names, by component.
_PREFIXES = {
    "unet": ("lora_unet",),
    "text_encoder": ("lora_te", "lora_te1"),
    "text_encoder_2": ("lora_te2",),
}
_WRAPPER = "text_model"  # in CLIP's names until transformers 5
_NO_WORD = re.compile(r"[._]")


@dataclass(frozen=True)
class Target:
    """A layer of a model.

    Attributes:
        component: the component of the pipeline, such as unet.
        path: the path of the layer in the component.
        shape: the shape of its weights.
    """

    component: str
    path: str
    shape: tuple[int, ...]


def by_component(pipeline: Any, read: LoraFile) -> dict[str, Tensors]:
    """Return the tensors of a file by component, under peft's names `PATH.lora_A.weight` and `PATH.lora_B.weight`.

    Args:
        pipeline: a pipeline with a UNet.
        read: the file.

    Raises:
        ModelInvalid: the model does not have a layer of the file, or the layer has another size.
    """
    known = dict(_names(pipeline))
    unknown = [layer.name for layer in read.layers if _plain(layer.name) not in known]
    if unknown:
        raise ModelInvalid(
            f"{len(unknown)} of {len(read.layers)} layers do not exist in a {type(pipeline).__name__}: {listed(unknown)}"
        )
    found: dict[str, Tensors] = {}
    for layer in read.layers:
        target = known[_plain(layer.name)]
        _check_size(layer, target, read.tensors)
        into = found.setdefault(target.component, {})
        into[f"{target.path}.lora_A.weight"] = _shaped(read.tensors[layer.down], target)
        into[f"{target.path}.lora_B.weight"] = _shaped(read.tensors[layer.up], target)
    return found


def _names(pipeline: Any) -> Iterator[tuple[str, Target]]:
    """Yield each spelling of each layer with its target."""
    for component, prefixes in _PREFIXES.items():
        network = getattr(pipeline, component, None)
        if network is None:
            continue
        for path, module in network.named_modules():
            if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                continue
            clean = path.removesuffix(".base_layer")  # the suffix of a layer that already has another LoRA
            target = Target(component, clean, tuple(module.weight.shape))
            for spelling in {clean, *_other_spellings(component, clean, network.config)}:
                for prefix in (component, *prefixes):
                    yield _plain(f"{prefix}.{spelling}"), target


def _other_spellings(component: str, path: str, config: Mapping[str, Any]) -> Iterator[str]:
    if component != "unet":
        yield f"{_WRAPPER}.{path}" if not path.startswith(_WRAPPER) else path.removeprefix(f"{_WRAPPER}.")
        return
    layers = config["layers_per_block"]
    if isinstance(layers, int):
        yield _stability(path, layers, config["up_block_types"])


def _stability(path: str, layers: int, up: tuple[str, ...]) -> str:
    """Convert a path to Stability's names: blocks have consecutive numbers, and parts of resnets have other names.

    Args:
        path: the path in diffusers.
        layers: the number of resnets of a down block.
        up: the types of the up blocks.
    """
    top = {
        "conv_in": "input_blocks.0.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
    }
    if path in top:
        return top[path]
    match = re.fullmatch(r"(down_blocks|up_blocks)\.(\d+)\.(\w+)\.(\d+)\.(.+)", path)
    if match is None:
        middle = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
        for ours, number in middle.items():
            path = path.replace(f"mid_block.{ours}.", f"middle_block.{number}.")
        return _stability_resnet(path)
    side, block, part, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if part == "downsamplers":
        return f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
    if part == "upsamplers":
        place = 2 if "Attn" in up[block] else 1
        return f"output_blocks.{block * (layers + 1) + layers}.{place}.{rest}"
    kind = 1 if part == "attentions" else 0
    if side == "down_blocks":
        return _stability_resnet(f"input_blocks.{1 + block * (layers + 1) + index}.{kind}.{rest}")
    return _stability_resnet(f"output_blocks.{block * (layers + 1) + index}.{kind}.{rest}")


def _stability_resnet(path: str) -> str:
    parts = {
        "conv1": "in_layers.2",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }
    head, _, last = path.rpartition(".")
    return f"{head}.{parts[last]}" if last in parts else path


def _plain(name: str) -> str:
    """Normalise a name: remove the differences between spellings, which are dots, underscores and old wrappers."""
    name = name.removeprefix("base_model.model.").replace(".processor.", ".")
    name = re.sub(r"\.to_out$", ".to_out.0", name)
    return _NO_WORD.sub(" ", name)


def _check_size(layer: Layer, target: Target, tensors: Tensors) -> None:
    down, up = tensors[layer.down], tensors[layer.up]
    if up.shape[0] != target.shape[0] or down[0].numel() != torch.Size(target.shape[1:]).numel():
        raise ModelInvalid(
            f"{layer.name} is for a layer of {down[0].numel()} inputs and {up.shape[0]} outputs:"
            f" {target.component}.{target.path} has weights of shape {target.shape}"
        )


def _shaped(tensor: torch.Tensor, target: Target) -> torch.Tensor:
    """Reshape a tensor for the layer; a file may store a 1x1 convolution as a linear layer, and the reverse."""
    if len(target.shape) == 2:  # noqa: PLR2004 - a matrix
        return tensor.flatten(1)
    return tensor if tensor.dim() == len(target.shape) else tensor[..., None, None]
