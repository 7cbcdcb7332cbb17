# SPDX-License-Identifier: Apache-2.0
"""One denoising step of a whole batch, as a function of tensors: UNet input, UNet call, guidance, update.

No branch depends on a value, and the function reads nothing back from the device. So the calling thread never waits, and
a CUDA graph can capture the step: from step to step only the values of its tensors change. Branches depend only on what
the caller knows by shape: whether any image keeps memory, adds noise or rescales its guidance.

Each image brings a row of numbers: its timestep, the scale of its input, its guidance, and the coefficients of its update
(`step_plan`). The rows of one batch are one small tensor, which is made on the CPU and copied asynchronously.

Latents, memory and all arithmetic except the UNet's are float32, whatever the dtype of the model. Several schedulers of
diffusers also compute a step in float32, but round its result to the model's dtype. This module rounds nothing between
steps. Sums are multiplications and additions of whole tensors. Matrix products are avoided, because a GPU may compute
them in TF32.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from sd_runtime.engine.pipelines.families import Conditions
from sd_runtime.engine.sampling.step_plan import LATENTS, MEMORY, NOISE, PREDICTION

Forward = Callable[[torch.Tensor, torch.Tensor, Conditions], torch.Tensor]

TIME, INPUT_SCALE, GUIDANCE, RESCALE, UPDATE = 0, 1, 2, 3, 4
"""Columns of `Batch.numbers`. The coefficients of the update start at UPDATE, row by row."""


class Rows(NamedTuple):
    """Which rows of the UNet call belong to which image; int64 on the device.

    Attributes:
        image: for each row, the index of its image; padding rows are included.
        avoid: for each image, the row of its negative prompt; without guidance, the row of its prompt.
        follow: for each image, the row of its prompt.
    """

    image: torch.Tensor
    avoid: torch.Tensor
    follow: torch.Tensor


class Batch(NamedTuple):
    """The inputs of one step of several images; the first dimension counts images, unless noted otherwise.

    Attributes:
        latents: (images, channels, height, width).
        memory: (images, slots, channels, height, width).
        noise: the same shape as the latents; None: no image adds noise in this step.
        numbers: (images, UPDATE + (1 + slots) * (3 + slots)).
        rows: the rows of the UNet call, by image.
        conditions: the conditions of the UNet call; the first dimension counts its rows.
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
    """Compute one denoising step of every image.

    Args:
        call: calls the UNet.
        batch: the images.
        dtype: the dtype of the UNet's input.

    Returns:
        A tensor (images, 1 + slots, channels, height, width) with the next latents and the memory for the step after;
        and the guided predictions, in the shape of the latents. All are new tensors.
    """
    scaled = batch.latents * _column(batch, INPUT_SCALE)
    samples = scaled.index_select(0, batch.rows.image).to(dtype)
    times = batch.numbers[:, TIME].index_select(0, batch.rows.image)
    prediction = guided(call(samples, times, batch.conditions), batch)
    return update(prediction, batch), prediction


def guided(prediction: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Apply classifier-free guidance; an image without guidance keeps its prediction.

    Args:
        prediction: the output of the UNet; the first dimension counts the rows of its call.
        batch: the images.
    """
    follow = prediction.index_select(0, batch.rows.follow).float()
    avoid = prediction.index_select(0, batch.rows.avoid).float()
    mixed = avoid + _column(batch, GUIDANCE) * (follow - avoid)
    return _rescaled(mixed, follow, _column(batch, RESCALE)) if batch.rescaled else mixed


def update(prediction: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Compute the next latents and memory, as `step` returns them, from guided predictions."""
    slots = batch.memory.shape[1]
    # One number for each image, result and term; it is broadcast over channels, height and width.
    coefficients = batch.numbers[:, UPDATE:].view(-1, 1 + slots, MEMORY + slots, 1, 1, 1)
    found = coefficients[:, :, LATENTS] * batch.latents.unsqueeze(1)
    found.addcmul_(coefficients[:, :, PREDICTION], prediction.unsqueeze(1))
    if batch.noise is not None:
        found.addcmul_(coefficients[:, :, NOISE], batch.noise.unsqueeze(1))
    for slot in range(slots):
        found.addcmul_(coefficients[:, :, MEMORY + slot], batch.memory[:, slot : slot + 1])
    return found


def _rescaled(mixed: torch.Tensor, follow: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Rescale the guidance to the standard deviation of the prompt's prediction, mixed in by a share.

    The method is that of arXiv 2305.08891, section 3.4.
    """
    ratio = follow.std(dim=(1, 2, 3), keepdim=True) / mixed.std(dim=(1, 2, 3), keepdim=True)
    return torch.where(share > 0, mixed * (share * ratio + (1 - share)), mixed)


def _column(batch: Batch, index: int) -> torch.Tensor:
    return batch.numbers[:, index].view(-1, 1, 1, 1)
