# SPDX-License-Identifier: Apache-2.0
"""Creates the runner for a model, the function that prepares its image tasks, and the limits of a batch."""

from collections.abc import Callable

from sd_runtime.config import Batching
from sd_runtime.engine.execution.batcher import Batcher, BatchLimits
from sd_runtime.engine.execution.pipeline_runner import PipelineRunner
from sd_runtime.engine.execution.preparing import Prepare, Preparer, as_they_are
from sd_runtime.engine.execution.step_batch_runner import Runner, StepBatchRunner
from sd_runtime.engine.model import LoadedModel
from sd_runtime.engine.sampling.step_noise import StepNoise
from sd_runtime.engine.sampling.unet_batch import UNetBatch
from sd_runtime.observability.observer import Observer

# Activations of a UNet for one cell of latents, in numbers per channel of its widest blocks: the skip connections of
# the downward path and a few working copies. The number is a guess, so half of the memory stays unused.
# `BatchLimits.shrink` corrects the guess when memory runs out.
_LIVE_COPIES = 64
_GUESSED_SHARE, _MEASURED_SHARE = 0.5, 0.9
_CPU_MEMORY = 4 * 2**30


def runner(model: LoadedModel, observer: Observer) -> Runner:
    """Return the runner that generates images with the model; only one runner may be in use at a time."""
    if model.family is None or model.tuned.call is None:
        return PipelineRunner(model.pipeline, loras=model.loras, device=model.device, observer=observer)
    return StepBatchRunner(
        predict=UNetBatch(model.tuned.call, padded=model.tuned.fixed_shapes),
        loras=model.loras,
        groups=Batcher(lambda: model.loras.switch_seconds),
        budget=BatchLimits(Batching().max_batch_size, _pixels(model)),
        device=model.device,
        observer=observer,
    )


def preparation(
    model: LoadedModel, observer: Observer, draw_ahead: Callable[[StepNoise], None] = lambda _: None
) -> Prepare:
    """Return the function that prepares image tasks for the runner; only one thread may use it.

    Args:
        model: the model that generates the images.
        observer: receives counts and times of encodings.
        draw_ahead: generates the noise of an image's next steps in advance; by default each step generates its own.
    """
    if model.family is None:
        return as_they_are
    return Preparer(
        model.pipeline,
        model.family,
        loras=model.text_loras,
        device=model.device,
        observer=observer,
        draw_ahead=draw_ahead,
    ).prepare


def _pixels(model: LoadedModel) -> int:
    """Return the largest rows times pixels of a UNet call, beside a decoder at the model's default size."""
    free = model.device.free() or 2 * _CPU_MEMORY
    if model.peaks.denoising:
        decoding = model.peaks.decoding * model.defaults.width * model.defaults.height
        return max(1, int((free * _MEASURED_SHARE - decoding) / model.peaks.denoising))
    unet = model.pipeline.unet
    cell = int(unet.config.block_out_channels[0]) * unet.dtype.itemsize * _LIVE_COPIES
    return int(free * _GUESSED_SHARE / cell * model.pipeline.vae_scale_factor**2)
