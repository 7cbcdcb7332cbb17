# SPDX-License-Identifier: Apache-2.0
"""The model card: what the model is, and how often it is right."""

import math
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file

from sd_training.evaluation import Score
from sd_training.shapes import BACKGROUNDS, COLOURS, KINDS, OUTLINES, SIZES

NAME = "README.md"
_PARTS = (("text encoder", "text_encoder"), ("UNet", "unet"), ("VAE", "vae"))

_TEXT = """\
# shapes: a Stable Diffusion of {megabytes:.1f} MB

It draws one shape in one colour on a plain background, from captions such as "a red circle" or "a photo of a large blue star on
a black background". Made for quick starts and tests: the first picture of a new user shows something, and a test can check meaning.

- **Data**: drawn, never collected: {shapes}; in {colours}; on {backgrounds}: {kinds} kinds. Radius {least:.2f} to {most:.2f} of the side
  ("small" up to {small:.2f}, "large" from {large:.2f}), anywhere near the middle, at 64, 128 and 256 pixels.
- **Captions**: "a [small|large] COLOUR SHAPE on a BACKGROUND background" in many wordings; any part may go unnamed, one in ten says
  nothing, and unknown words are strewn in. The tokenizer knows the captions' words and spells all other text in bytes.
- **Architecture**: {parts}; fp16 safetensors. The VAE's encoder is written, not trained: twelve latents per 8x8 cell are a linear map
  of the mean colours of its quarters. v-prediction. It loads as any `StableDiffusionPipeline` folder.
- **Use**: 64 to 256 pixels (multiples of 8), 12 to 25 steps, guidance 2 to 7.5; `generation_config.json` holds the defaults.
- **Limits**: one shape per picture; it was trained on squares alone; words beyond these mean nothing to it.
- **Licence**: Apache-2.0, data and weights alike.

Accuracy by a pixel classifier, which is right on {classifier:.1%} of pictures drawn by hand; all kinds, seeds that training never saw
(`make evaluate`). `fit` is the overlap with an ideal shape, `edge` the blurred pixels per pixel of outline (drawn by hand: {edge:.2f}).

| setting | pictures | colour | background | shape | fit | edge |
|---|---|---|---|---|---|---|
{rows}
"""


def write(folder: Path, scores: Sequence[Score], notes: Sequence[str] = ()) -> None:
    """Write the card of a pipeline folder.

    Args:
        folder: as `pipeline.save` left it.
        scores: the classifier's own on drawn pictures, then the model's.
        notes: further findings, a paragraph each.
    """
    ideal, *rest = scores
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != NAME)
    text = _TEXT.format(
        megabytes=size / 1e6,
        shapes=", ".join(OUTLINES),
        colours=", ".join(COLOURS),
        backgrounds=", ".join(BACKGROUNDS),
        kinds=len(KINDS),
        least=SIZES[""][0],
        most=SIZES[""][1],
        small=SIZES["small"][1],
        large=SIZES["large"][0],
        parts=", ".join(f"{name} {_parameters(folder / part) / 1e6:.2f} M" for name, part in _PARTS),
        classifier=ideal.shape,
        edge=ideal.softness,
        rows="\n".join(map(_row, rest)),
    )
    (folder / NAME).write_text("\n".join([text, *(f"{note}\n" for note in notes)]))


def _parameters(part: Path) -> int:
    (weights,) = part.glob("*.safetensors")
    return sum(tensor.numel() for tensor in load_file(weights).values())


def _row(score: Score) -> str:
    shares = (score.colour, score.background, score.shape)
    figures = " | ".join("" if math.isnan(share) else f"{share:.3f}" for share in shares)
    return f"| {score.name} | {score.pictures} | {figures} | {score.overlap:.2f} | {score.softness:.2f} |"
