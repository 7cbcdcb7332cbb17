# SPDX-License-Identifier: Apache-2.0
"""The latent space: a fixed linear map of the mean colours of each cell's four quarters.

`encoder.write` puts the same map into the VAE's weights; training takes the short way, from the coverage of a shape.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sd_training.architecture import CHANNELS, FACTOR

QUARTER = FACTOR // 2
"""Pixels per quarter and side."""

# Signs of the quarters (top left, top right, bottom left, bottom right) in mean, horizontal, vertical, diagonal step.
HAAR = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 4
_STRENGTH = 0.25


@dataclass(frozen=True)
class Space:
    """Latents = matrix @ steps + offset.

    Attributes:
        matrix: (12, 12).
        offset: (12,).
    """

    matrix: Tensor
    offset: Tensor

    def encode(self, quarters: Tensor) -> Tensor:
        """Latents (n, 12, h, w) of quarters (n, 3, 2h, 2w) with values -1 to 1."""
        moved = torch.einsum("ij,njhw->nihw", self.matrix, steps(quarters))
        return moved + self.offset[:, None, None]


def steps(quarters: Tensor) -> Tensor:
    """The Haar steps (n, 12, h, w), four orders of three colours each, of quarters (n, 3, 2h, 2w)."""
    cells = torch.nn.functional.pixel_unshuffle(quarters, 2).unflatten(1, (3, 4))
    return torch.einsum("oq,ncqhw->nochw", HAAR.to(quarters), cells).flatten(1, 2)


def colour(coverage: Tensor, palettes: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) of coverage (n, h, w), 0 to 1, and palettes (n, 2, 3): shape, then background."""
    shape, background = palettes[:, 0, :, None, None], palettes[:, 1, :, None, None]
    return background + (shape - background) * coverage[:, None]


def fit(quarters: Tensor) -> Space:
    """The space in which these quarters have mean 0, uncorrelated channels and, over all channels, variance 1.

    Channels are whitened halfway only: the coarse ones stay stronger and come out of the noise first, so that
    details follow them.
    """
    samples = steps(quarters).transpose(0, 1).flatten(1)
    centre = samples.mean(1)
    variances, directions = torch.linalg.eigh(torch.cov(samples))
    scales = variances.clamp(min=1e-6) ** -_STRENGTH
    scales *= (CHANNELS / (variances * scales**2).sum()).sqrt()
    matrix = (directions * scales).T.flip(0)  # strongest first
    return Space(matrix, -matrix @ centre)
