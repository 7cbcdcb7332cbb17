# SPDX-License-Identifier: Apache-2.0
import random

import numpy as np
import pytest

from sd_training.shapes import KINDS, OUTLINES, SIZES, Geometry, Kind, any_geometry, mask, paint


def test_no_kind_has_the_colour_of_its_background():
    assert len(KINDS) == len(set(KINDS)) == 228
    assert all(kind.colour != kind.background for kind in KINDS)


@pytest.mark.parametrize("shape", OUTLINES)
def test_a_mask_has_the_same_share_at_every_size(shape):
    geometry = Geometry(0.5, 0.52, 0.3)
    shares = [mask(shape, geometry, side).mean() / 255 for side in (64, 128, 256)]
    assert max(shares) - min(shares) < 0.006  # a polygon's outline is a pixel of the oversampled mask wide


@pytest.mark.parametrize("size", SIZES)
def test_a_shape_lies_wholly_inside(size):
    rng = random.Random(4)
    for shape in OUTLINES:
        for _ in range(50):
            drawn = mask(shape, any_geometry(rng, size), 64)
            assert not any(edge.any() for edge in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]))


def test_a_picture_has_the_two_colours_of_its_kind():
    pixels = np.asarray(paint(Kind("circle", "red", "white"), mask("circle", Geometry(0.5, 0.5, 0.3), 64)))
    assert tuple(pixels[32, 32]) == (220, 40, 40)
    assert tuple(pixels[0, 0]) == (246, 246, 246)
