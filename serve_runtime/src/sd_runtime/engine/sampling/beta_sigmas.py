# SPDX-License-Identifier: Apache-2.0
"""Noise levels at quantiles of a beta distribution (arXiv 2407.12173), as diffusers computes them with SciPy.

The container image contains no SciPy. Where SciPy is installed, diffusers imports its statistics with every scheduler,
and each start of a replica takes seconds longer.
"""

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

_SHAPE = 0.6  # both parameters of the distribution, so it is symmetric
_TERMS = 64  # of the series: at 1/2, where it converges slowest, the rest is below 1e-19
_HALVINGS = 60

Numbers = npt.NDArray[np.float64]


class BetaSigmas:
    """Mixin for a scheduler class: computes its sigmas when its configuration sets `use_beta_sigmas`."""

    config: Any

    def _convert_to_beta(self, in_sigmas: Any, num_inference_steps: int) -> Numbers:
        """Return the noise levels of the steps, largest first, between the model's lowest and highest level."""
        least, most = getattr(self.config, "sigma_min", None), getattr(self.config, "sigma_max", None)
        least = in_sigmas[-1].item() if least is None else least
        most = in_sigmas[0].item() if most is None else most
        levels: Numbers = least + _descending(num_inference_steps) * (most - least)
        return levels


@functools.lru_cache(64)
def _descending(count: int) -> Numbers:
    return quantiles(1 - np.linspace(0, 1, count))


def quantiles(shares: Numbers) -> Numbers:
    """Return the points at which the cumulative distribution function reaches each share, 0 to 1."""
    mirrored = shares > 0.5  # noqa: PLR2004 - the distribution is symmetric around it
    wanted = np.where(mirrored, 1 - shares, shares)
    low, high = np.zeros_like(wanted), np.full_like(wanted, 0.5)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = _share(middle) < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    places = np.where(wanted == 0, 0.0, high)
    return np.where(mirrored, 1 - places, places)


def _share(places: Numbers) -> Numbers:
    """Return the cumulative distribution function at points from 0 to 1/2.

    The function sums the power series of the incomplete beta function.
    """
    total, term = np.zeros_like(places), np.ones_like(places)
    for index in range(_TERMS):
        total += term / (_SHAPE + index)
        term = term * places * (1 - _SHAPE + index) / (index + 1)
    whole = math.gamma(_SHAPE) ** 2 / math.gamma(2 * _SHAPE)
    shares: Numbers = places**_SHAPE * total / whole
    return shares
