# SPDX-License-Identifier: Apache-2.0
"""The studio that suits a model, what prepares its images, and how much it may hold at once."""

from sd_runtime.config import Batching
from sd_runtime.diffusion.denoising import Denoiser, Studio
from sd_runtime.diffusion.groups import Budget, Groups
from sd_runtime.diffusion.model import LoadedModel
from sd_runtime.diffusion.predicting import NoisePredictor
from sd_runtime.diffusion.preparing import Prepare, Preparer, as_they_are
from sd_runtime.diffusion.stock import StockStudio
from sd_runtime.observer import Observer

# Activations of a UNet for one cell of latents, in numbers per channel of its widest blocks: skip connections of
# the way down and a few working copies. The rest is what `Budget.shrink` learns.
_LIVE_COPIES = 64
_CPU_MEMORY = 4 * 2**30


def studio(model: LoadedModel, observer: Observer) -> Studio:
    """A studio that draws with the model; one at a time may be used."""
    if model.family is None or model.tuned.call is None:
        return StockStudio(model.pipeline, model.loras, observer)
    return Denoiser(
        predict=NoisePredictor(model.tuned.call, padded=model.tuned.fixed_shapes),
        loras=model.loras,
        groups=Groups(lambda: model.loras.switch_seconds),
        budget=Budget(Batching().max_batch_size, _pixels(model)),
        device=model.device,
        observer=observer,
    )


def preparation(model: LoadedModel, observer: Observer) -> Prepare:
    """What makes images ready for the studio; one thread may use it."""
    if model.family is None:
        return as_they_are
    return Preparer(
        model.pipeline, model.family, loras=model.text_loras, device=model.device, observer=observer
    ).prepare


def _pixels(model: LoadedModel) -> int:
    """Rows times pixels of the picture that a UNet call may hold: half the free memory's worth."""
    free = model.device.free() or 2 * _CPU_MEMORY
    unet = model.pipeline.unet
    cell = int(unet.config.block_out_channels[0]) * unet.dtype.itemsize * _LIVE_COPIES
    return int(free / 2 / cell * model.pipeline.vae_scale_factor**2)
