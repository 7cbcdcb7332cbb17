# SPDX-License-Identifier: Apache-2.0
"""Classifier of pictures by their pixels alone, without a network that could share the model's mistakes."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sd_training.shapes import BACKGROUNDS, COLOURS, OUTLINES, Colour, Geometry, Kind, mask

_TEMPLATE = 48
_BORDER = 16  # the border is one part in so many of the side
_LEAST_CONTRAST = 40.0
_LEAST_PIXELS = 12

Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """The content of a picture.

    Attributes:
        kind: the kind of the picture; None: it shows only background.
        overlap: the overlap of the shape with the template of its kind, as intersection over union.
        area: the share of the picture that the shape covers.
        softness: pixels that are neither shape nor background, per pixel of the shape's outline; an ideal picture
            has about 1.
    """

    background: str
    kind: Kind | None = None
    overlap: float = 0.0
    area: float = 0.0
    softness: float = 0.0


def classify(image: Image.Image) -> Seen:
    """Classify a picture of one shape in one colour on a plain background."""
    pixels = np.asarray(image.convert("RGB"), np.float64)
    ground = _border_colour(pixels)
    background = _nearest(ground, BACKGROUNDS)
    distance = np.linalg.norm(pixels - ground, axis=2)
    contrast = float(np.percentile(distance, 99))
    inside = distance > max(_LEAST_CONTRAST, contrast / 2)
    if inside.sum() < _LEAST_PIXELS:
        return Seen(background)
    core = inside & (distance > 0.8 * np.percentile(distance[inside], 60))
    colour = _nearest(np.median(pixels[core], axis=0), COLOURS)
    overlaps = {shape: _overlap(_fitted(inside), template) for shape, template in _templates().items()}
    shape = max(overlaps, key=lambda name: overlaps[name])
    between = (distance > contrast * 0.15) & (distance < contrast * 0.85)
    return Seen(
        background,
        Kind(shape, colour, background),
        overlaps[shape],
        float(inside.mean()),
        float(between.sum() / max(1, _outline(inside))),
    )


def _border_colour(pixels: Pixels) -> Pixels:
    wide = max(2, min(pixels.shape[:2]) // _BORDER)
    sides = [pixels[:wide], pixels[-wide:], pixels[:, :wide], pixels[:, -wide:]]
    median: Pixels = np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)
    return median


def _nearest(colour: Pixels, palette: dict[str, Colour]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(colour - np.asarray(palette[name]))))


@cache
def _templates() -> dict[str, NDArray[np.bool_]]:
    return {shape: _fitted(mask(shape, Geometry(0.5, 0.5, 0.4), 480) > 127) for shape in OUTLINES}


def _fitted(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Stretch the shape to a square of one size, so that position and size have no effect."""
    rows, columns = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
    cut = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = Image.fromarray((cut * 255).astype(np.uint8))
    return np.asarray(image.resize((_TEMPLATE, _TEMPLATE), Image.Resampling.BOX)) > 127


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def _outline(inside: NDArray[np.bool_]) -> int:
    """Pixels of the shape with a neighbour outside."""
    padded = np.pad(inside, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return int((inside & ~inner).sum())
