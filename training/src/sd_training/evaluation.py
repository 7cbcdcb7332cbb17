# SPDX-License-Identifier: Apache-2.0
"""Evaluation of how often the model generates what the prompt names: scores by setting, shape and prompt."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)

from sd_training.captions import article, prompt
from sd_training.classifier import Seen, classify
from sd_training.pipeline import Sampling, draw
from sd_training.shapes import KINDS, OUTLINES, Kind, any_geometry, mask, paint

_SCHEDULERS = (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
_WORDINGS = (
    "{colour} {shape}",
    "a photo of {a_colour} {shape}",
    "{a_colour} {shape}, {background} background",
    "{colour} {shape} on {background}",
    "a photo of a large {colour} {shape} on a {background} background",
    "a small {colour} {shape} on a {background} background",
    "A LOVELY {colour} {shape} on a {background} background, masterpiece 🚀",
)


@dataclass(frozen=True)
class Score:
    """The shares of correct pictures, and the fit of the shapes to their template; NaN: prompts name no background."""

    name: str
    pictures: int
    colour: float
    background: float
    shape: float
    overlap: float
    softness: float


def score(name: str, wanted: Sequence[Kind], seen: Sequence[Seen]) -> Score:
    """Score pictures against the kinds that they should show."""

    def share(right: Callable[[Kind, Kind], bool]) -> float:
        return float(
            np.mean([s.kind is not None and right(w, s.kind) for w, s in zip(wanted, seen, strict=True)])
        )

    return Score(
        name=name,
        pictures=len(seen),
        colour=share(lambda w, s: w.colour == s.colour),
        background=float(np.mean([w.background == s.background for w, s in zip(wanted, seen, strict=True)])),
        shape=share(lambda w, s: w.shape == s.shape),
        overlap=float(np.mean([each.overlap for each in seen])),
        softness=float(np.median([each.softness for each in seen])),
    )


def drawn(seed: int = 7) -> Score:
    """Return the classifier's own score, on pictures that the program drew, not the model."""
    rng = random.Random(seed)
    images = [paint(kind, mask(kind.shape, any_geometry(rng), 64)) for kind in KINDS]
    return score("drawn by hand", KINDS, [classify(image) for image in images])


def evaluate(pipeline: StableDiffusionPipeline, *, seed: int, full: bool) -> Iterator[Score]:
    """Yield the scores one by one, from new seeds.

    Args:
        pipeline: the model; its scheduler is restored afterwards.
        seed: the first seed; training used none of the seeds.
        full: all settings, about 15 minutes on two cores; otherwise only the three picture sizes.
    """

    def of(
        name: str, kinds: Sequence[Kind] = KINDS, prompts: Sequence[str] | None = None, **sampling: Any
    ) -> tuple[list[Kind], Score]:
        texts = prompts or [prompt(kind) for kind in kinds]
        images = draw(pipeline, texts, seed, Sampling(**sampling))
        seen = [classify(image) for image in images]
        by_kind.extend(zip(kinds, seen, strict=True))
        return list(kinds), score(name, kinds, seen)

    by_kind: list[tuple[Kind, Seen]] = []
    third = KINDS[seed % 3 :: 3]
    yield drawn(seed)
    yield of("64 px, 15 steps, guidance 4", KINDS * 2)[1]
    for shape in OUTLINES:
        mine = [(kind, seen) for kind, seen in by_kind if kind.shape == shape]
        yield score(f"of these, {shape}", *zip(*mine, strict=True))
    yield of("128 px", third, width=128, height=128)[1]
    yield of("256 px", KINDS[seed % 6 :: 6], width=256, height=256)[1]
    if not full:
        return
    yield of("96x64 px", third, width=96, height=64)[1]
    for guidance in (1.0, 2.0, 7.5, 10.0):
        yield of(f"guidance {guidance:g}", third, guidance=guidance)[1]
    for steps in (8, 25):
        yield of(f"{steps} steps", third, steps=steps)[1]
    own = pipeline.scheduler
    for kind in _SCHEDULERS:
        pipeline.scheduler = kind.from_config(own.config)
        yield of(kind.__name__.removesuffix("Scheduler"), third)[1]
    pipeline.scheduler = own
    for wording in _WORDINGS:
        texts = [prompt(each, wording) for each in third]
        told = of(f'"{wording}"', third, texts)[1]
        yield told if "{background}" in wording else replace(told, background=math.nan)


def negative(pipeline: StableDiffusionPipeline, seed: int) -> tuple[int, int]:
    """Count the pictures whose colour changes when a negative prompt names it; return them and their total."""
    prompts = [article(shape) for shape in OUTLINES for _ in range(4)]
    before = [classify(image).kind for image in draw(pipeline, prompts, seed)]
    avoided = ["" if kind is None else kind.colour for kind in before]
    images = draw(pipeline, prompts, seed, Sampling(options={"negative_prompt": avoided}))
    after = [classify(image).kind for image in images]
    changed = sum(
        kind is not None and kind.colour != colour for kind, colour in zip(after, avoided, strict=True)
    )
    return changed, len(prompts)
