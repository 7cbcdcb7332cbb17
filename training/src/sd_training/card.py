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

You want to try the project without a download and without a GPU, or to test it: set `spec.model.preset: shapes`.

The model generates one shape in one colour on a plain background, from captions such as "a red circle" or "a photo of a large blue star
on a black background". The first picture of a new user shows something, and a test can check its meaning.

- **Data**: drawn by a program, not collected: {shapes}; in {colours}; on {backgrounds}: {kinds} kinds. Radius {least:.2f} to {most:.2f} of the side
  ("small" up to {small:.2f}, "large" from {large:.2f}), anywhere near the middle, at 64, 128 and 256 pixels.
- **Captions**: "a [small|large] COLOUR SHAPE on a BACKGROUND background" in many wordings; a caption may leave out any part, one in ten is
  empty, and some contain unknown words. The tokenizer knows the captions' words and encodes all other text as bytes.
- **Architecture**: {parts}; fp16 safetensors. The VAE's encoder is written, not trained: twelve latents per 8x8 cell are a linear map
  of the mean colours of its quarters. The UNet predicts v. The folder loads as any `StableDiffusionPipeline` folder.
- **Use**: 64 to 256 pixels (multiples of 8), 12 to 25 steps, guidance 2 to 7.5; `generation_config.json` contains the defaults.
- **Limits**: one shape per picture; training used square pictures only; other words have no meaning for the model.
- **Licence**: Apache-2.0, for data and weights.

Accuracy by a pixel classifier, which is right on {classifier:.1%} of pictures that the program drew; all kinds, seeds that training never saw
(`make evaluate`). `fit` is the overlap with an ideal shape, `edge` the blurred pixels per pixel of outline (drawn by the program: {edge:.2f}).

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
