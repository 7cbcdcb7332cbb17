# SPDX-License-Identifier: Apache-2.0
"""Applies the configured optimizations, and reports which of them are in effect on this device."""

from dataclasses import dataclass
from typing import Any

import torch

from sd_runtime.config import Optimizations, Quantization
from sd_runtime.engine.acceleration import quantizing
from sd_runtime.engine.acceleration.compiled import CompiledCall, Compiler
from sd_runtime.engine.acceleration.cpu_rows import CpuRows
from sd_runtime.engine.acceleration.cuda_graphs import Graphs
from sd_runtime.engine.device import Device, cores
from sd_runtime.engine.lora.lora_switch import LoraSwitch
from sd_runtime.engine.sampling.batched_step import Forward
from sd_runtime.engine.sampling.unet_batch import forward


@dataclass(frozen=True)
class Tuned:
    """The result of applying the optimizations to a pipeline.

    Attributes:
        call: the UNet call; None for pipelines that generate images with their own `__call__`.
        effective: for each optimization, whether it is in effect.
        compiled: the compiled calls, UNet first; empty where nothing is compiled.
        graphs: the UNet's captured calls; None where none are captured.
    """

    call: Forward | None
    effective: dict[str, bool]
    compiled: tuple[CompiledCall, ...] = ()
    graphs: Graphs | None = None

    @property
    def fixed_shapes(self) -> bool:
        """Whether each new shape of a call takes time to compile or capture, so that few shapes are better."""
        return self.effective["compile"] or self.effective["cuda_graphs"]


def tune(
    pipeline: Any,
    wanted: Optimizations,
    device: Device,
    loras: LoraSwitch,
    quantization: Quantization | None = None,
) -> Tuned:
    """Apply the configured optimizations that this device supports; the LoRAs must be attached before.

    Raises:
        ConfigError: the pipeline cannot be quantized.
    """
    unet = getattr(pipeline, "unet", None)
    if unet is None:
        quantizing.quantize(pipeline, quantization)
        return Tuned(None, dict.fromkeys(Optimizations.model_fields, False))
    effective = {
        "channels_last": wanted.channels_last and _channels_last(pipeline, device),
        # Fused projections bypass the LoRAs.
        "fuse_qkv": wanted.fuse_qkv and not loras.names and _fuse(unet),
        "compile": wanted.compile,
        "cuda_graphs": wanted.cuda_graphs and device.kind == "cuda",
    }
    quantizing.quantize(pipeline, quantization)
    compiled: tuple[CompiledCall, ...] = ()
    call = forward(unet)
    if effective["compile"]:
        call = _compile(pipeline, device, loras)
        compiled = (call, pipeline.vae.decode)
    if effective["cuda_graphs"]:
        graphs = Graphs(call, loras, *(each.compiling for each in compiled[:1]))
        return Tuned(graphs, effective, compiled, graphs)
    # Only one thread calls compiled code: guards that two threads check at once fail, and torch compiles again.
    shared_out = device.kind == "cpu" and cores() > 1 and not compiled
    return Tuned(CpuRows(call, cores(), device.beside) if shared_out else call, effective, compiled)


def _channels_last(pipeline: Any, device: Device) -> bool:
    """Use the channels-last memory order on a GPU, whose tensor cores read convolutions in this order.

    On the measured CPU this order gains nothing, and a single image takes a tenth longer.
    """
    if device.kind != "cuda":
        return False
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    return True


def _fuse(unet: Any) -> bool:
    try:
        unet.fuse_qkv_projections()
    except (AttributeError, ValueError):  # this attention cannot be fused
        return False
    return True


def _compile(pipeline: Any, device: Device, loras: LoraSwitch) -> CompiledCall:
    """Make the calls of UNet and decoder compile in the background; the UNet's code depends on its active LoRAs."""
    unet, compiler = pipeline.unet, Compiler(device)
    # Freezing lays out constant weights for the CPU's kernels once. LoRAs change the weights, so they exclude it.
    options = {"freezing": True} if device.kind == "cpu" and not loras.names else None

    def build(active: Any) -> Forward:
        return forward(loras.copy_of(unet, active) if loras.names else unet)

    pipeline.vae.decode = CompiledCall(
        "decoder", pipeline.vae.decode, compiler, device=device, options=options
    )
    return CompiledCall(
        "UNet",
        forward(unet),
        compiler,
        device=device,
        variant=lambda: loras.active,
        build=build,
        # Clients may choose any strength, so only the configured strengths are compiled.
        may_compile=lambda active: active is not None and not active.strengths,
        options=options,
    )
