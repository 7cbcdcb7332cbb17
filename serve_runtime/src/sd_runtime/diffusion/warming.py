# SPDX-License-Identifier: Apache-2.0
"""Draw each size once before the first request does: kernels are chosen, compiled and captured by then."""

import torch

from sd_runtime.config import Batching, WarmupShape
from sd_runtime.diffusion import compile_cache, failures
from sd_runtime.diffusion.decoding import Decoder
from sd_runtime.diffusion.denoising import Denoiser
from sd_runtime.diffusion.drawing import drawings
from sd_runtime.diffusion.model import LoadedModel
from sd_runtime.diffusion.predicting import padded_rows
from sd_runtime.diffusion.studios import studio
from sd_runtime.engine import ImageRequest
from sd_runtime.errors import ModelUnavailable
from sd_runtime.observer import Silent
from sd_runtime.starting import Starting

_STEPS = 2  # schedulers of several orders begin otherwise than they go on


def warm_up(model: LoadedModel, starting: Starting) -> None:
    """Draw the configured sizes: the phase `compile` if that is what takes the time, else `warmup`.

    Raises:
        ModelUnavailable: a size cannot be drawn here.
    """
    fixed, defaults = model.tuned.fixed_shapes, model.defaults
    shapes = model.config.warmup
    if fixed and not shapes:
        shapes = (WarmupShape(width=defaults.width, height=defaults.height),)
    if not shapes:
        return
    starting.enter("compile" if fixed else "warmup")
    for shape in shapes:
        for count in batches(Batching().max_batch_size) if fixed else (1,):
            _draw(model, shape, count)
    if model.tuned.effective["compile"]:
        compile_cache.tell()


def batches(most: int) -> tuple[int, ...]:
    """Numbers of guided pictures whose padded rows are all that batches up to `most` come to."""
    return tuple(sorted({padded_rows(count) for count in range(1, most + 1)}))


def _draw(model: LoadedModel, shape: WarmupShape, count: int) -> None:
    drawing_room = studio(model, Silent())
    request = ImageRequest(
        prompt="",
        width=shape.width,
        height=shape.height,
        steps=_STEPS,
        guidance=model.defaults.guidance,
        count=count,
        id="warmup",
    )
    pictures = drawings(request, model.family)
    drawing_room.budget.pictures = count
    for drawing in pictures:
        drawing_room.join(drawing)
    while drawing_room.drawings():
        for _, error in drawing_room.tick().failed:
            told = failures.told(error, request.id, quoted=True)
            raise ModelUnavailable(f"warmup: {shape.width}x{shape.height}: {told}") from error
    if isinstance(drawing_room, Denoiser):
        with torch.inference_mode():
            Decoder(model.pipeline).decode([pictures[0].trajectory.latents])
