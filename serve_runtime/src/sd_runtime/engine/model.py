# SPDX-License-Identifier: Apache-2.0
"""A pipeline in memory, and all that is known of it."""

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
    """What the model's folder says of a request that does not: sides in pixels, steps, guidance."""

    width: int
    height: int
    steps: int
    guidance: float


@dataclass
class Peaks:
    """Memory that the warm-up saw in use beside the weights, in bytes; 0 where nobody counts.

    Attributes:
        denoising: of a UNet call, for each row and pixel of the picture.
        decoding: for each pixel.
    """

    denoising: float = 0.0
    decoding: float = 0.0


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline and what belongs to it.

    Attributes:
        family: None: it draws by its own `__call__`.
        colours: of its latents, for previews; None: they cannot be shown.
        loras: the switch of the thread that draws: of the UNet, or of the whole pipeline where that draws by its own call.
        text_loras: the switch of the thread that encodes prompts.
        seconds: time spent per phase of loading.
        peaks: memory, as far as it was measured.
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
