# SPDX-License-Identifier: Apache-2.0
"""The loaded model: a pipeline in memory, and what the engine knows about it."""

from dataclasses import dataclass, field
from typing import Any

from sd_runtime.config import RuntimeConfig
from sd_runtime.engine.acceleration.optimizations import Tuned
from sd_runtime.engine.device import Device
from sd_runtime.engine.lora.lora_switch import LoraSwitch
from sd_runtime.engine.pipelines.families import Family
from sd_runtime.engine.postprocess.previews import LatentColours
from sd_runtime.startup import Batching


@dataclass(frozen=True)
class OwnDefaults:
    """The model's own defaults for fields that a request leaves out: sides in pixels, steps, guidance."""

    width: int
    height: int
    steps: int
    guidance: float


@dataclass
class Peaks:
    """Peak memory in use beside the weights during warm-up, in bytes; 0 on devices that do not count memory.

    Attributes:
        denoising: peak of a UNet call, for each row and pixel of the image.
        decoding: peak of the decoder, for each pixel of the image.
    """

    denoising: float = 0.0
    decoding: float = 0.0


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline with its device, defaults, LoRAs and optimizations.

    Attributes:
        family: the pipeline family; None: the pipeline generates images with its own `__call__`.
        colours: colours of the latents, for previews; None: this model has no previews.
        loras: the LoRA switch of the denoising thread: for the UNet, or for a whole pipeline without a known family.
        text_loras: the LoRA switch of the thread that encodes prompts.
        seconds: seconds of each phase of loading.
        peaks: peak memory, as far as it was measured.
    """

    pipeline: Any
    config: RuntimeConfig
    family: Family | None
    colours: LatentColours | None
    device: Device
    dtype: str
    defaults: OwnDefaults
    loras: LoraSwitch
    text_loras: LoraSwitch
    tuned: Tuned
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: Peaks = field(default_factory=Peaks)

    @property
    def batching(self) -> Batching:
        """Whether images of many requests share each denoising step."""
        return "none" if self.family is None else "step"
