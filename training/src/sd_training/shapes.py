# SPDX-License-Identifier: Apache-2.0
"""The world of the model: one shape in one colour on a plain background, drawn exactly."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Mask = NDArray[np.uint8]

COLOURS: dict[str, Colour] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (245, 220, 45),
    "green": (40, 165, 70),
    "cyan": (60, 205, 220),
    "blue": (40, 80, 220),
    "purple": (140, 55, 180),
    "pink": (250, 150, 195),
    "white": (246, 246, 246),
    "black": (14, 14, 14),
}
BACKGROUNDS: dict[str, Colour] = {
    "white": (246, 246, 246),
    "black": (14, 14, 14),
    "gray": (128, 128, 128),
    "brown": (110, 70, 40),
}
# Radius as a share of the picture's side. "" is any size.
SIZES: dict[str, tuple[float, float]] = {"small": (0.25, 0.29), "": (0.25, 0.42), "large": (0.38, 0.42)}
_FARTHEST = 0.05  # of the middle, as a share of the side
_MARGIN = 0.02
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Kind:
    """What a picture shows."""

    shape: str
    colour: str
    background: str


@dataclass(frozen=True)
class Geometry:
    """Where a shape lies, in shares of the picture's side."""

    x: float
    y: float
    radius: float


def any_geometry(rng: random.Random, size: str = "") -> Geometry:
    """A place that leaves the whole shape in the picture."""
    radius = rng.uniform(*SIZES[size])
    reach = min(_FARTHEST, 0.5 - _MARGIN - radius)
    return Geometry(0.5 + rng.uniform(-reach, reach), 0.5 + rng.uniform(-reach, reach), radius)


def _ring(count: int, radius: Callable[[int], float]) -> list[Point]:
    angles = [2 * math.pi * index / count for index in range(count)]
    return [(radius(i) * math.sin(angle), -radius(i) * math.cos(angle)) for i, angle in enumerate(angles)]


def _heart() -> list[Point]:
    """The classic heart curve, scaled to the unit circle."""
    turns = [2 * math.pi * index / 72 for index in range(72)]
    xs = [math.sin(t) ** 3 for t in turns]
    ys = [
        -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17 for t in turns
    ]
    middle = (max(ys) + min(ys)) / 2
    return [(x, y - middle) for x, y in zip(xs, ys, strict=True)]


def _cross(arm: float) -> list[Point]:
    corner = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    turned = corner
    outline: list[Point] = []
    for _ in range(4):
        outline += turned
        turned = [(-y, x) for x, y in turned]
    return outline


OUTLINES: dict[str, list[Point]] = {
    "circle": _ring(96, lambda _: 1.0),
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": [(0.0, -1.0), (0.95, 0.75), (-0.95, 0.75)],
    "star": _ring(10, lambda index: 0.42 if index % 2 else 1.0),
    "heart": _heart(),
    "cross": _cross(0.32),
}
KINDS: list[Kind] = [
    Kind(shape, colour, background)
    for shape in OUTLINES
    for colour in COLOURS
    for background in BACKGROUNDS
    if colour != background
]


def mask(shape: str, geometry: Geometry, side: int) -> Mask:
    """Coverage of each pixel by the shape, 0 to 255; an array (side, side) of uint8."""
    large = side * _OVERSAMPLING
    image = Image.new("L", (large, large))
    points = [
        ((geometry.x + x * geometry.radius) * large, (geometry.y + y * geometry.radius) * large)
        for x, y in OUTLINES[shape]
    ]
    ImageDraw.Draw(image).polygon(points, fill=255)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def paint(kind: Kind, coverage: Mask) -> Image.Image:
    """The picture of a kind, from the coverage of its shape."""
    share = coverage[..., None].astype(np.float32) / 255
    colour, background = (np.asarray(each, np.float32) for each in palette(kind))
    return Image.fromarray((background + (colour - background) * share).round().astype(np.uint8))


def palette(kind: Kind) -> Sequence[Colour]:
    """Colour of the shape, colour of the background."""
    return COLOURS[kind.colour], BACKGROUNDS[kind.background]
