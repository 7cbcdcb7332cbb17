# SPDX-License-Identifier: Apache-2.0
"""Assembles the networks to a diffusers folder, and generates pictures from it with the stock pipeline."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from sd_training import architecture

_PIXELS_PER_CALL = 48 * 64 * 64


@dataclass(frozen=True)
class Sampling:
    """The settings with which pictures are generated.

    Attributes:
        options: further arguments of the pipeline; a list has one value per picture.
    """

    steps: int = 15
    guidance: float = 4.0
    width: int = 64
    height: int = 64
    options: dict[str, Any] = field(default_factory=dict)


def assemble(
    text: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel, vae: AutoencoderKL
) -> StableDiffusionPipeline:
    """Make the pipeline of the networks, without a safety checker, because shapes are harmless."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=architecture.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the folder, weights in half precision; the pipeline itself is half precision afterwards."""
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    usual = Sampling()
    settings = {"num_inference_steps": usual.steps, "guidance_scale": usual.guidance}
    (folder / "generation_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def load(folder: Path, device: str = "cpu") -> StableDiffusionPipeline:
    """The pipeline of a folder, in single precision."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], seed: int, sampling: Sampling | None = None
) -> list[Image.Image]:
    """Generate one picture per prompt, with consecutive seeds."""
    how = sampling or Sampling()
    most = max(1, _PIXELS_PER_CALL // (how.width * how.height))
    images: list[Image.Image] = []
    options = {name: value for name, value in how.options.items() if not isinstance(value, list)}
    for begin in range(0, len(prompts), most):
        part = list(prompts[begin : begin + most])
        images += pipeline(
            part,
            num_inference_steps=how.steps,
            guidance_scale=how.guidance,
            width=how.width,
            height=how.height,
            generator=[torch.Generator().manual_seed(seed + begin + index) for index in range(len(part))],
            **options,
            **{
                name: value[begin : begin + most]
                for name, value in how.options.items()
                if name not in options
            },
        ).images
    return images


def grid(images: Sequence[Image.Image], columns: int, cell: int) -> Image.Image:
    """All pictures on one sheet, enlarged or shrunk to square cells without smoothing."""
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * cell, rows * cell), "white")
    for index, image in enumerate(images):
        place = (index % columns * cell, index // columns * cell)
        sheet.paste(image.resize((cell, cell), Image.Resampling.NEAREST), place)
    return sheet
