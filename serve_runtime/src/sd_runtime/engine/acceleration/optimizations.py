# SPDX-License-Identifier: Apache-2.0
"""The speed switches: what is asked for, what of it can be had here, and the UNet call that results."""

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
    """How the pipeline computes.

    Attributes:
        call: of the UNet; None for pipelines that draw by their own `__call__`.
        effective: the switches as they are.
        compiled: the compiled calls, UNet first; empty where nothing is compiled.
        graphs: the UNet's captured calls; None where none are captured.
    """

    call: Forward | None
    effective: dict[str, bool]
    compiled: tuple[CompiledCall, ...] = ()
    graphs: Graphs | None = None

    @property
    def fixed_shapes(self) -> bool:
        """Whether each new shape of a call costs time, so that there should be few."""
        return self.effective["compile"] or self.effective["cuda_graphs"]


def tune(
    pipeline: Any,
    wanted: Optimizations,
    device: Device,
    loras: LoraSwitch,
    quantization: Quantization | None = None,
) -> Tuned:
    """Switch on what is wanted and can be had; after the LoRAs are attached.

    Raises:
        ConfigError: the pipeline cannot be quantized.
    """
    unet = getattr(pipeline, "unet", None)
    if unet is None:
        quantizing.quantize(pipeline, quantization)
        return Tuned(None, dict.fromkeys(Optimizations.model_fields, False))
    effective = {
        "channels_last": wanted.channels_last and _channels_last(pipeline, device),
        # Fused projections pass the LoRAs by.
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
    # Compiled code is called by one thread: torch's guards, when two check them at once, fail and compile anew.
    shared_out = device.kind == "cpu" and cores() > 1 and not compiled
    return Tuned(CpuRows(call, cores(), device.beside) if shared_out else call, effective, compiled)


def _channels_last(pipeline: Any, device: Device) -> bool:
    """Tensor cores read convolutions in this order; on the measured CPU it gains nothing and costs lone pictures a tenth."""
    if device.kind != "cuda":
        return False
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    return True


def _fuse(unet: Any) -> bool:
    try:
        unet.fuse_qkv_projections()
    except (AttributeError, ValueError):  # attention of a kind that cannot be fused
        return False
    return True


def _compile(pipeline: Any, device: Device, loras: LoraSwitch) -> CompiledCall:
    """The calls of UNet and decoder, compiled beside; the UNet's by active LoRAs."""
    unet, compiler = pipeline.unet, Compiler(device)
    # Weights that never change are laid out for the CPU's kernels once; LoRAs change them.
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
        # A client chooses among any number of strengths; the configured ones are compiled.
        may_compile=lambda active: active is not None and not active.strengths,
        options=options,
    )
