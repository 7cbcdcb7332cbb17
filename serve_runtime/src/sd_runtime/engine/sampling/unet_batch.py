# SPDX-License-Identifier: Apache-2.0
"""One denoising step for the images of a batch, each at its own timestep.

The states of the images are gathered into tensors; the results are split by image again.
"""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sd_runtime.engine.pipelines.families import Conditions
from sd_runtime.engine.sampling import batched_step
from sd_runtime.engine.sampling.batched_step import Batch, Forward, Rows
from sd_runtime.engine.sampling.denoise_state import Advance, DenoiseState
from sd_runtime.engine.sampling.step_plan import MEMORY

_FEW_ROWS = (1, 2, 4, 6, 8, 12, 16)
_ROWS_APART = 8
_ADDED = ("text_embeds", "time_ids")  # conditions that UNets take in a separate dictionary
_LAYOUTS = 256


def forward(unet: Any) -> Forward:
    """Return a function that calls a UNet as it is."""

    def call(samples: torch.Tensor, timesteps: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        added = {name: tensor for name, tensor in conditions.items() if name in _ADDED}
        direct = {name: tensor for name, tensor in conditions.items() if name not in _ADDED}
        result: torch.Tensor = unet(
            samples, timesteps, **direct, added_cond_kwargs=added or None, return_dict=False
        )[0]
        return result

    return call


class UNetBatch:
    """Calls the UNet once for all images of a batch, and computes the next state of each image.

    Attributes:
        padded: pad the call to one of a few row counts, see `padded_rows`, so that few shapes are compiled or captured.
    """

    def __init__(self, call: Forward, *, padded: bool = False) -> None:
        self._call = call
        self.padded = padded
        self._joined: tuple[list[Conditions], int, Conditions] = ([], 0, {})

    def __call__(self, trajectories: Sequence[DenoiseState]) -> list[Advance]:
        """Compute the next step of each image; the states do not change, so a failed call can be repeated."""
        text = trajectories[0].conditions["encoder_hidden_states"]
        batch = self._gathered(trajectories, text.device)
        nexts, predictions = batched_step.step(self._call, batch, text.dtype)
        shares = zip(nexts[:, 0].split(1), nexts[:, 1:].unbind(), predictions.split(1), strict=True)
        return [Advance(*share) for share in shares]

    def _gathered(self, trajectories: Sequence[DenoiseState], device: torch.device) -> Batch:
        slots = max(trajectory.plan.slots for trajectory in trajectories)
        rows = tuple(trajectory.rows for trajectory in trajectories)
        called = padded_rows(sum(rows)) if self.padded else sum(rows)
        return Batch(
            latents=torch.cat([trajectory.sample().float() for trajectory in trajectories]),
            memory=_memory(trajectories, slots),
            noise=_noise(trajectories, device),
            numbers=_sent(_numbers(trajectories, slots), device),
            rows=_rows(rows, called, device),
            conditions=self._conditions([trajectory.conditions for trajectory in trajectories], called),
            rescaled=any(trajectory.rescale > 0 for trajectory in trajectories),
        )

    def _conditions(self, conditions: list[Conditions], called: int) -> Conditions:
        """Join the conditions of all images; they are joined again only when the batch has changed."""
        before, rows, joined = self._joined
        same = len(before) == len(conditions) and all(map(operator.is_, before, conditions))
        if not same or rows != called:
            joined = {name: torch.cat([each[name] for each in conditions]) for name in conditions[0]}
            joined = {name: _pad(tensor, called - len(tensor)) for name, tensor in joined.items()}
            self._joined = (conditions, called, joined)
        return joined


def padded_rows(rows: int) -> int:
    """Round a row count up to 1, 2, 4, 6, 8, 12, 16 or a multiple of 8.

    At most 29 % of a call is padding. With powers of two it would be 47 %: 9 or 10 rows would compute 16.
    """
    return next((size for size in _FEW_ROWS if size >= rows), -(-rows // _ROWS_APART) * _ROWS_APART)


def _pad(tensor: torch.Tensor, room: int) -> torch.Tensor:
    """Repeat the last row; the results of the repeated rows are discarded."""
    return tensor if room == 0 else torch.cat([tensor, tensor[-1:].expand(room, *tensor.shape[1:])])


@functools.lru_cache(_LAYOUTS)
def _rows(rows: tuple[int, ...], called: int, device: torch.device) -> Rows:
    """Assign the rows of a call to images, given the rows of each image.

    The call has `called` rows; padding rows belong to the last image.
    """
    follow = np.cumsum(rows) - 1
    image = np.repeat(np.arange(len(rows)), rows)
    filled = np.append(image, np.full(called - len(image), len(rows) - 1))
    indices = (filled, follow - np.array(rows) + 1, follow)
    return Rows(*(_sent(torch.from_numpy(each), device) for each in indices))


def _numbers(trajectories: Sequence[DenoiseState], slots: int) -> torch.Tensor:
    """Make Batch.numbers; an image with fewer slots than another has zeros in the additional ones."""
    terms = MEMORY + slots
    numbers = np.zeros((len(trajectories), batched_step.UPDATE + (1 + slots) * terms), np.float32)
    updates = numbers[:, batched_step.UPDATE :].reshape(-1, 1 + slots, terms)
    for row, update, each in zip(numbers, updates, trajectories, strict=True):
        plan, index = each.plan, each.index
        row[: batched_step.UPDATE] = (
            plan.timesteps[index],
            plan.input_scales[index],
            each.guidance,
            each.rescale,
        )
        update[: 1 + plan.slots, : MEMORY + plan.slots] = plan.updates[index]
    return torch.from_numpy(numbers)


def _memory(trajectories: Sequence[DenoiseState], slots: int) -> torch.Tensor:
    """Make Batch.memory; an image with fewer slots than another has zeros in the additional ones."""
    kept = [trajectory.memory for trajectory in trajectories]
    return torch.stack([each if len(each) == slots else _filled(each, slots) for each in kept])


def _filled(memory: torch.Tensor, slots: int) -> torch.Tensor:
    return torch.cat([memory, memory.new_zeros((slots - len(memory), *memory.shape[1:]))])


def _noise(trajectories: Sequence[DenoiseState], device: torch.device) -> torch.Tensor | None:
    """Return the noise of this step, with zeros for images that add none; None: no image adds noise."""
    drawn = [trajectory.noise.current() for trajectory in trajectories]
    present = [each for each in drawn if each is not None]
    if not present:
        return None
    none = torch.zeros_like(present[0])
    return _sent(torch.cat([none if each is None else each for each in drawn]), device)


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a small tensor from the CPU to the device without waiting; CUDA requires pinned memory for it."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    # MPS would read the memory after it is freed.
    return tensor.to(device, non_blocking=device.type != "mps")
