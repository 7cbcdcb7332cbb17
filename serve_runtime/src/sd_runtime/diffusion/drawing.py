# SPDX-License-Identifier: Apache-2.0
"""One pipeline call for several pictures of equal shape; runs on the engine's thread."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from sd_runtime import images
from sd_runtime.diffusion.loader import LoadedModel
from sd_runtime.engine import Picture
from sd_runtime.errors import GenerationFailed


class Shape(NamedTuple):
    """What pictures of one pipeline call have in common."""

    width: int
    height: int
    steps: int
    guidance: float


@dataclass(frozen=True)
class Drawing:
    """One picture to make."""

    prompt: str
    negative_prompt: str
    shape: Shape
    seed: int


class Abandoned(Exception):
    """Nobody waits for any picture of the call any more."""


def draw(model: LoadedModel, drawings: Sequence[Drawing], wanted: Callable[[], bool]) -> list[Picture]:
    """Make the pictures, all of one shape, in one call.

    Each picture has a generator of its own, so it is the same alone and beside others (1e-4 on latents in fp32).

    Args:
        model: the pipeline; it is not changed, since scheduler state belongs to this call alone.
        drawings: what to draw; not empty.
        wanted: asked after each step; False abandons the call.

    Raises:
        Abandoned: `wanted` said no.
        GenerationFailed: a picture is not a number.
    """
    pipeline = copy.copy(model.pipeline)
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    shape = drawings[0].shape

    def after_step(_: Any, __: int, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if not wanted():
            raise Abandoned
        return tensors

    result = pipeline(
        prompt=[drawing.prompt for drawing in drawings],
        negative_prompt=[drawing.negative_prompt for drawing in drawings],
        # On the CPU: noise does not depend on the device then.
        generator=[torch.Generator("cpu").manual_seed(drawing.seed) for drawing in drawings],
        width=shape.width,
        height=shape.height,
        num_inference_steps=shape.steps,
        guidance_scale=shape.guidance,
        output_type="np",
        callback_on_step_end=after_step,
    )
    return [_picture(pixels, drawing) for pixels, drawing in zip(result.images, drawings, strict=True)]


def touch(device: str) -> None:
    """Compute one number on the device; raises where a device fault has made all further work fail."""
    torch.ones(1, device=device).item()


def _picture(pixels: "np.ndarray[Any, Any]", drawing: Drawing) -> Picture:
    """Encode pixels of shape (height, width, 3), values 0 to 1."""
    if not np.isfinite(pixels).all():
        raise GenerationFailed(
            "the picture is not a number: the weights overflow in this precision; try bfloat16"
        )
    image = Image.fromarray((pixels * 255).round().astype("uint8"))
    shape = drawing.shape
    parameters = {
        "prompt": drawing.prompt,
        "negative_prompt": drawing.negative_prompt,
        "seed": drawing.seed,
        "steps": shape.steps,
        "guidance": shape.guidance,
        "width": shape.width,
        "height": shape.height,
    }
    return Picture(images.png(image, parameters), drawing.seed)
