# SPDX-License-Identifier: Apache-2.0
"""One denoising step of a whole batch, as a function of tensors: input of the UNet, its call, guidance, update.

No branch depends on a value and nothing is read back from the device, so the thread that calls it never waits, and a
CUDA graph can hold it: what differs from tick to tick are the values of its tensors. Branches depend on what the caller
knows by shape: whether any image keeps memory, adds noise or rescales its guidance.

Each image brings a row of numbers: its time, the scale of its input, its guidance, and the coefficients of its update
(`step_plan`). The rows of a tick are one small tensor, made on the CPU and copied without waiting.

Latents, memory and all arithmetic but the UNet's are float32, whatever the model computes in: several of diffusers'
schedulers compute a step so and round its result to the model's type; here nothing is rounded between steps. Sums are
multiplications and additions of whole tensors, not matrix products, which a GPU may compute in TF32.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from sd_runtime.engine.pipelines.families import Conditions
from sd_runtime.engine.sampling.step_plan import LATENTS, MEMORY, NOISE, PREDICTION

Forward = Callable[[torch.Tensor, torch.Tensor, Conditions], torch.Tensor]

TIME, INPUT_SCALE, GUIDANCE, RESCALE, UPDATE = 0, 1, 2, 3, 4
"""Columns of the numbers; from the last one on, the update's coefficients row by row."""


class Rows(NamedTuple):
    """Which rows of the UNet call belong to which image; int64 on the device.

    Attributes:
        image: of each row, those included that only fill up the call.
        avoid: the row that says what to avoid, of each image; that of the prompt where there is no guidance.
        follow: the row of the prompt, of each image.
    """

    image: torch.Tensor
    avoid: torch.Tensor
    follow: torch.Tensor


class Batch(NamedTuple):
    """What one step of several images takes; the first dimension counts images, unless noted otherwise.

    Attributes:
        latents: (images, channels, height, width).
        memory: (images, slots, channels, height, width).
        noise: like the latents; None: no image adds any.
        numbers: (images, UPDATE + (1 + slots) * (3 + slots)).
        rows: of the UNet call.
        conditions: by rows of the UNet call.
        rescaled: whether any image rescales its guidance.
    """

    latents: torch.Tensor
    memory: torch.Tensor
    noise: torch.Tensor | None
    numbers: torch.Tensor
    rows: Rows
    conditions: Conditions
    rescaled: bool


def step(call: Forward, batch: Batch, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Take a step with every image.

    Args:
        call: of the UNet.
        batch: the images.
        dtype: of the UNet's input.

    Returns:
        (images, 1 + slots, channels, height, width), the next latents and what is kept for the step after; and the guided
        predictions, like the latents. All are new tensors.
    """
    scaled = batch.latents * _column(batch, INPUT_SCALE)
    samples = scaled.index_select(0, batch.rows.image).to(dtype)
    times = batch.numbers[:, TIME].index_select(0, batch.rows.image)
    prediction = guided(call(samples, times, batch.conditions), batch)
    return update(prediction, batch), prediction


def guided(prediction: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Classifier-free guidance; where there is none, the prediction as it is.

    Args:
        prediction: by rows of the UNet call.
        batch: the images.
    """
    follow = prediction.index_select(0, batch.rows.follow).float()
    avoid = prediction.index_select(0, batch.rows.avoid).float()
    mixed = avoid + _column(batch, GUIDANCE) * (follow - avoid)
    return _rescaled(mixed, follow, _column(batch, RESCALE)) if batch.rescaled else mixed


def update(prediction: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The next latents and memory, as `step` returns them, from guided predictions."""
    slots = batch.memory.shape[1]
    # For each image, result and term one number, to be spread over channels, height and width.
    coefficients = batch.numbers[:, UPDATE:].view(-1, 1 + slots, MEMORY + slots, 1, 1, 1)
    found = coefficients[:, :, LATENTS] * batch.latents.unsqueeze(1)
    found.addcmul_(coefficients[:, :, PREDICTION], prediction.unsqueeze(1))
    if batch.noise is not None:
        found.addcmul_(coefficients[:, :, NOISE], batch.noise.unsqueeze(1))
    for slot in range(slots):
        found.addcmul_(coefficients[:, :, MEMORY + slot], batch.memory[:, slot : slot + 1])
    return found


def _rescaled(mixed: torch.Tensor, follow: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Guidance with the spread of the prompt's prediction (arXiv 2305.08891, section 3.4), mixed in by a share."""
    ratio = follow.std(dim=(1, 2, 3), keepdim=True) / mixed.std(dim=(1, 2, 3), keepdim=True)
    return torch.where(share > 0, mixed * (share * ratio + (1 - share)), mixed)


def _column(batch: Batch, index: int) -> torch.Tensor:
    return batch.numbers[:, index].view(-1, 1, 1, 1)
