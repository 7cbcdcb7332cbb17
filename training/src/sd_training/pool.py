# SPDX-License-Identifier: Apache-2.0
"""The training shapes, many masks of each, and the selection of masks that fit a caption."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sd_training.captions import Named
from sd_training.loop import Chance
from sd_training.shapes import BACKGROUNDS, COLOURS, OUTLINES, SIZES, any_geometry, mask

_SHAPES, _COLOURS, _BACKGROUNDS, _SIZES = list(OUTLINES), list(COLOURS), list(BACKGROUNDS), list(SIZES)
_UNNAMED = -1


@dataclass(frozen=True)
class Pool:
    """Masks of one picture size.

    Attributes:
        masks: (6, count, side, side) of uint8, each shape's by radius, smallest first.
    """

    masks: Tensor

    @classmethod
    def drawn(cls, side: int, count: int, chance: Chance) -> "Pool":
        """`count` masks of each shape."""
        rows = []
        for shape in _SHAPES:
            geometries = sorted(
                (any_geometry(chance.rng) for _ in range(count)), key=lambda each: each.radius
            )
            rows.append(np.stack([mask(shape, geometry, side) for geometry in geometries]))
        return cls(torch.from_numpy(np.stack(rows)))

    def coverage(self, shapes: Tensor, sizes: Tensor, chance: Chance) -> Tensor:
        """Coverage (n, side, side), 0 to 1, of shapes and sizes (n,), by their numbers."""
        count = self.masks.shape[1]
        (least, most), low, high = SIZES[""], SIZES["small"][1], SIZES["large"][0]
        begin = torch.tensor([0.0 if size != "large" else (high - least) / (most - least) for size in _SIZES])
        end = torch.tensor([1.0 if size != "small" else (low - least) / (most - least) for size in _SIZES])
        share = begin[sizes] + (end - begin)[sizes] * torch.rand(len(shapes), generator=chance.tensors)
        return self.masks[shapes, (share * count).long().clamp(max=count - 1)].float() / 255


def numbers(named: Sequence[Named]) -> Tensor:
    """Convert captions to numbers: (n, 4) of shape, colour, background, size; -1 for a part that is not named."""

    def number(name: str | None, names: list[str]) -> int:
        return _UNNAMED if name is None else names.index(name)

    return torch.tensor(
        [
            (
                number(each.shape, _SHAPES),
                number(each.colour, _COLOURS),
                number(each.background, _BACKGROUNDS),
                number(each.size, _SIZES),
            )
            for each in named
        ]
    )


def completed(named: Tensor, chance: Chance) -> Tensor:
    """Replace every -1 by a random value; a shape never has the colour of its background."""
    counts = torch.tensor([len(_SHAPES), len(_COLOURS), len(_BACKGROUNDS), len(_SIZES)])
    guess = (torch.rand(named.shape, generator=chance.tensors) * counts).long()
    whole = torch.where(named == _UNNAMED, guess, named)
    clash = torch.tensor([[c == b for b in _BACKGROUNDS] for c in _COLOURS])[whole[:, 1], whole[:, 2]]
    # Both named never clash. White and black clash only; gray and brown follow them, and eight colours go before.
    free = named[:, 2] == _UNNAMED
    whole[:, 2] += 2 * (clash & free)
    whole[:, 1] -= 8 * (clash & ~free)
    return whole


def palettes(whole: Tensor) -> Tensor:
    """Colours (n, 2, 3) of shape and background, -1 to 1."""
    colours = torch.tensor(list(COLOURS.values())) / 127.5 - 1
    backgrounds = torch.tensor(list(BACKGROUNDS.values())) / 127.5 - 1
    return torch.stack([colours[whole[:, 1]], backgrounds[whole[:, 2]]], 1)
