# SPDX-License-Identifier: Apache-2.0
import random

import pytest
from PIL import Image, ImageFilter

from sd_training.classifier import classify
from sd_training.shapes import KINDS, any_geometry, mask, paint


def drawn(side, seed=3):
    rng = random.Random(seed)
    return [(kind, paint(kind, mask(kind.shape, any_geometry(rng), side))) for kind in KINDS]


@pytest.mark.parametrize("side", [64, 128, 256])
def test_it_is_right_on_every_drawn_picture(side):
    wrong = [(kind, seen) for kind, image in drawn(side) if (seen := classify(image)).kind != kind]
    assert wrong == []


def test_nothing_but_background_is_no_shape():
    seen = classify(Image.new("RGB", (64, 64), (14, 14, 14)))
    assert (seen.kind, seen.background) == (None, "black")


def test_blur_shows_as_softness():
    _, image = drawn(64)[0]
    sharp, soft = classify(image), classify(image.filter(ImageFilter.GaussianBlur(2)))
    assert sharp.softness < 1.2
    assert soft.softness > 2 * sharp.softness
