# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from sd_training.captions import Named
from sd_training.loop import Chance
from sd_training.pool import Pool, completed, numbers, palettes
from sd_training.shapes import BACKGROUNDS, COLOURS, OUTLINES, SIZES


@pytest.fixture(scope="module")
def pool():
    return Pool.drawn(64, 200, Chance.of("pool"))


def test_what_is_named_stays_and_the_rest_is_filled():
    named = numbers([Named("star", None, "white"), Named(None, "white", None, "large")] * 200)
    whole = completed(named, Chance.of("fill"))
    assert (whole >= 0).all()
    assert ((named == -1) | (named == whole)).all()
    assert len(whole[::2, 1].unique()) == len(COLOURS) - 1
    assert set(whole[1::2, 0].tolist()) == set(range(len(OUTLINES)))


def test_a_shape_is_never_in_the_colour_of_its_background():
    white = list(COLOURS).index("white"), list(BACKGROUNDS).index("white")
    named = torch.full((1000, 4), -1)
    named[:300, 1] = white[0]
    named[300:600, 2] = white[1]
    colours = palettes(completed(named, Chance.of("clash")))
    assert (colours[:, 0] != colours[:, 1]).any(1).all()


def test_a_small_shape_is_smaller_than_a_large_one(pool):
    shapes = torch.arange(6).repeat(20)
    chance = Chance.of("sizes")
    small, large = (
        pool.coverage(shapes, torch.full((120,), list(SIZES).index(size)), chance).mean((1, 2))
        for size in ("small", "large")
    )
    assert (small.view(20, 6).max(0).values < large.view(20, 6).min(0).values).all()
