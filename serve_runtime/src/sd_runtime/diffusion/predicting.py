# SPDX-License-Identifier: Apache-2.0
"""One UNet call for the rows of many pictures, each at a time of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sd_runtime.diffusion.families import Conditions
from sd_runtime.diffusion.trajectory import Trajectory

Forward = Callable[[torch.Tensor, torch.Tensor, Conditions], torch.Tensor]
_FEW_ROWS = (1, 2, 4, 6, 8, 12, 16)
_ROWS_APART = 8
_ADDED = ("text_embeds", "time_ids")  # what UNets take in a dictionary of its own


def forward(unet: Any) -> Forward:
    """The plain call of a UNet."""

    def call(samples: torch.Tensor, timesteps: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        added = {name: tensor for name, tensor in conditions.items() if name in _ADDED}
        direct = {name: tensor for name, tensor in conditions.items() if name not in _ADDED}
        result: torch.Tensor = unet(
            samples, timesteps, **direct, added_cond_kwargs=added or None, return_dict=False
        )[0]
        return result

    return call


class NoisePredictor:
    """Asks the UNet about all pictures of a batch at once.

    Attributes:
        padded: fill up to one of few numbers of rows, see `padded_rows`, so that few shapes are compiled or captured.
    """

    def __init__(self, call: Forward, *, padded: bool = False) -> None:
        self._call = call
        self.padded = padded

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[torch.Tensor]:
        """What the UNet says to each, one row for each of its conditions."""
        rows = [trajectory.rows for trajectory in trajectories]
        samples = torch.cat([trajectory.inputs() for trajectory in trajectories])
        times = torch.stack([trajectory.timestep.float() for trajectory in trajectories])
        timesteps = times.repeat_interleave(torch.tensor(rows)).to(samples.device, non_blocking=True)
        conditions = {
            name: torch.cat([trajectory.conditions[name] for trajectory in trajectories])
            for name in trajectories[0].conditions
        }
        if self.padded:
            room = padded_rows(len(samples)) - len(samples)
            samples, timesteps = _pad(samples, room), _pad(timesteps, room)
            conditions = {name: _pad(tensor, room) for name, tensor in conditions.items()}
        return list(self._call(samples, timesteps, conditions)[: sum(rows)].split(rows))


def padded_rows(rows: int) -> int:
    """The next of 1, 2, 4, 6, 8, 12, 16 and then multiples of 8.

    At most 29 % of a call are padding. With powers of two it would be 47 %: 9 or 10 rows would compute 16.
    """
    return next((size for size in _FEW_ROWS if size >= rows), -(-rows // _ROWS_APART) * _ROWS_APART)


def _pad(tensor: torch.Tensor, room: int) -> torch.Tensor:
    """Repeat the last row; what comes of it is thrown away."""
    return tensor if room == 0 else torch.cat([tensor, tensor[-1:].expand(room, *tensor.shape[1:])])
