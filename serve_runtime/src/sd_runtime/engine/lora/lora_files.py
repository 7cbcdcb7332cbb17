# SPDX-License-Identifier: Apache-2.0
"""LoRA files, read layer by layer: each layer's own scale, alpha / rank, is folded into its weights.

Files come from kohya's scripts, from peft and from diffusers, old and new. All contain pairs of matrices: `down` of shape
(rank, inputs) and `up` of shape (outputs, rank). They differ in names and in the place of alpha: a tensor beside the
pair, the metadata of the file, or nowhere, which means alpha = rank.

diffusers 0.42 passes ranks and alphas that differ between layers to peft under names that match no layer. Such layers
then act at a wrong scale. For a pair of scale 1 there is nothing to pass.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from sd_runtime.engine.failures import listed
from sd_runtime.errors import ModelInvalid

_METADATA = "lora_adapter_metadata"
_DOWN = re.compile(r"(lora_down|lora_A|lora_linear_layer\.down|lora\.down)((?:\.default)?\.weight)$")

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Layer:
    """One layer of a file, by the names of its tensors.

    Attributes:
        name: the common prefix of the names of its tensors.
        rank: the rank of the pair.
        alpha: the alpha of the layer; None: the file contains none.
    """

    name: str
    down: str
    up: str
    rank: int
    alpha: float | None


@dataclass(frozen=True)
class LoraFile:
    """A LoRA whose layers act at scale 1.

    Attributes:
        layers: all layers of the file.
        tensors: the pairs, by the names in the file; `up` already contains the factor alpha / rank.
    """

    layers: tuple[Layer, ...]
    tensors: Tensors


def read(file: Path) -> LoraFile:
    """Read a safetensors file.

    Raises:
        ModelInvalid: the file contains anything but complete pairs of finite numbers; the message names it.
    """
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        settings = _Settings.of((opened.metadata() or {}).get(_METADATA))
    layers = tuple(_layers(tensors, settings))
    known = {name for layer in layers for name in (layer.down, layer.up, f"{layer.name}.alpha")}
    unknown = sorted(tensors.keys() - known)
    if unknown:
        raise ModelInvalid(
            f"{listed(unknown)} cannot be applied: a layer must be a pair of down and up matrices with an alpha"
            " (LoHa, LoKr, DoRA, biases and other formats are not supported)"
        )
    if not layers:
        raise ModelInvalid("the file contains no layers")
    folded = {name: tensors[name] for layer in layers for name in (layer.down, layer.up)}
    for layer in layers:
        _check(layer, folded)
        folded[layer.up] = folded[layer.up].float() * _scale(layer, settings)
    return LoraFile(layers, folded)


@dataclass(frozen=True)
class _Settings:
    """The alphas in the metadata of a file: peft's configuration of each component, by its prefix."""

    by_component: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, text: str | None) -> "_Settings":
        found: dict[str, dict[str, Any]] = {}
        for name, value in json.loads(text or "{}").items():
            component, _, key = name.partition(".")
            found.setdefault(component, {})[key] = value
        for component, each in found.items():
            odd = [key for key in ("use_dora", "lora_bias") if each.get(key)]
            if odd:
                raise ModelInvalid(f"{component}: the file's metadata sets {odd[0]}, which is not supported")
        return cls(found)

    def alpha(self, layer: str) -> float | None:
        """Return the alpha of a layer; None: the metadata contains none."""
        component, _, name = layer.partition(".")
        each = self.by_component.get(component, {})
        for pattern, alpha in (each.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", name):  # as peft reads it
                return float(alpha)
        return each.get("lora_alpha")

    def is_rank_stabilised(self, layer: str) -> bool:
        """Whether the scale is alpha divided by the square root of the rank."""
        return bool(self.by_component.get(layer.partition(".")[0], {}).get("use_rslora"))


def _layers(tensors: Tensors, settings: _Settings) -> Iterator[Layer]:
    for down in sorted(tensors):
        match = _DOWN.search(down)
        if match is None:
            continue
        name = down[: match.start()].rstrip("._")
        up = down[: match.start()] + match[1].replace("down", "up").replace("lora_A", "lora_B") + match[2]
        if up not in tensors:
            raise ModelInvalid(f"{down} has no matching {up}")
        yield Layer(
            name=name,
            down=down,
            up=up,
            rank=len(tensors[down]) if tensors[down].dim() else 0,
            alpha=_alpha(name, tensors, settings),
        )


def _alpha(layer: str, tensors: Tensors, settings: _Settings) -> float | None:
    stored = tensors.get(f"{layer}.alpha")
    if stored is None:
        return settings.alpha(layer)
    if stored.numel() != 1:
        raise ModelInvalid(f"{layer}.alpha has shape {tuple(stored.shape)}: must be one number")
    return float(stored)


def _check(layer: Layer, tensors: Tensors) -> None:
    down, up = tensors[layer.down], tensors[layer.up]
    if not (down.is_floating_point() and up.is_floating_point()):
        raise ModelInvalid(f"{layer.name} has {down.dtype} and {up.dtype}: must be floating-point numbers")
    if down.dim() < 2 or up.dim() < 2 or layer.rank == 0 or up.shape[1] != layer.rank:  # noqa: PLR2004 - matrices
        raise ModelInvalid(
            f"{layer.name} has a down matrix of shape {tuple(down.shape)} and an up matrix of shape {tuple(up.shape)}:"
            " their ranks must be equal"
        )
    if not (down.isfinite().all() and up.isfinite().all()):
        raise ModelInvalid(f"{layer.name} contains infinite values or NaN")
    if layer.alpha is not None and not (math.isfinite(layer.alpha) and layer.alpha != 0):
        raise ModelInvalid(f"{layer.name}.alpha is {layer.alpha}: must be a number other than 0")


def _scale(layer: Layer, settings: _Settings) -> float:
    if layer.alpha is None:
        return 1.0
    return layer.alpha / (math.sqrt(layer.rank) if settings.is_rank_stabilised(layer.name) else layer.rank)
