# SPDX-License-Identifier: Apache-2.0
"""`model.quantization`: the linear layers of the UNet's attention blocks compute in float8.

Torchao stores the weights as float8 with a scale for each row. It scales each row of the input at every call. The GPU adds
the products up in float32, and the output is bfloat16. Embeddings of time and size process one vector per image, gain
almost nothing, and stay in bfloat16. Convolutions and the LoRAs over a layer stay in bfloat16 too.
"""

import logging
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from sd_runtime.config import DType, Quantization
from sd_runtime.engine import failures
from sd_runtime.engine.device import Device
from sd_runtime.errors import ConfigError

logger = logging.getLogger(__name__)

_ATTENTION = ".attentions."
_MULTIPLE = 16  # the GPU's instructions need inputs and outputs in multiples of this number
_LEAST_MAXIMUM = 1e-12  # of an input row; torchao divides by the maximum, so a row of zeros would be NaN


def check(wanted: Quantization | None, dtype: DType, device: Device) -> None:
    """Raise for a quantization that the device cannot compute; called before the weights are loaded.

    Args:
        wanted: the quantization; None: nothing is checked.
        dtype: the number format of the computation.
        device: the device of the computation.

    Raises:
        ConfigError: the device has no float8, or the dtype is not bfloat16.
    """
    if wanted is None:
        return
    if not device.has_float8():
        raise _refused(
            wanted, f"needs a GPU of compute capability 8.9 or more, and this device is {device.name()}"
        )
    if dtype != "bfloat16":
        raise _refused(wanted, f"needs model.dtype bfloat16, and model.dtype is {dtype!r}")


def quantize(pipeline: Any, wanted: Quantization | None) -> None:
    """Quantize the UNet of a pipeline in place, after LoRAs are attached and projections fused.

    Args:
        pipeline: the pipeline.
        wanted: the quantization; None: nothing is done.

    Raises:
        ConfigError: no layer of the pipeline can be quantized, or torchao refuses the device.
    """
    if wanted is None:
        return
    unet = getattr(pipeline, "unet", None)
    found = set() if unet is None else _layers(unet)
    if not found:
        raise _refused(
            wanted,
            f"needs linear layers in a UNet's attention blocks, with multiples of {_MULTIPLE} inputs and outputs,"
            f" and a {type(pipeline).__name__} has none",
        )
    # The import takes half a second, so services without quantization skip it; see `replica.load_engine`.
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_  # noqa: PLC0415

    how = Float8DynamicActivationFloat8WeightConfig(
        granularity=PerRow(),
        # SDXL encodes an empty negative prompt as zeros.
        activation_value_lb=_LEAST_MAXIMUM,
        set_inductor_config=False,  # the settings of torch's compiler stay
    )
    try:
        quantize_(unet, how, lambda module, _: module in found)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise _refused(wanted, f"is refused by torchao: {failures.one_line(error)}") from error
    logger.info("%d linear layers of the UNet compute in float8", len(found))


def _layers(unet: Any) -> set[torch.nn.Module]:
    """Return the layers to quantize."""
    adapters = {
        part
        for layer in unet.modules()
        if isinstance(layer, LoraLayer)
        for each in (layer.lora_A, layer.lora_B)
        for part in each.modules()
    }
    return {
        module
        for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Linear)
        and _ATTENTION in f".{name}"
        and module not in adapters
        and _fits(module)
    }


def _fits(layer: torch.nn.Linear) -> bool:
    """Whether the layer's sizes fit, and no row of weights is all zeros; torchao turns a row of zeros into NaN."""
    sizes = layer.in_features % _MULTIPLE == layer.out_features % _MULTIPLE == 0
    return sizes and bool(layer.weight.any(dim=1).all())


def _refused(wanted: Quantization, words: str) -> ConfigError:
    return ConfigError(f"model.quantization: got {wanted!r}: it {words}")
