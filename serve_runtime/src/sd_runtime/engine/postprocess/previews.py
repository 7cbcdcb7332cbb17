# SPDX-License-Identifier: Apache-2.0
"""Previews of unfinished images, from latents by a linear map: a thousandth of the work of the VAE.

The maps of the known VAEs are published ones.

- Stable Diffusion 1.x and 2.x: keturn in the forum of Hugging Face
  (https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204/2), fitted to images of 1.4. Version
  2.x has the same latent space; ComfyUI's `comfy/supported_models.py` agrees.
- SDXL: ComfyUI's `comfy/latent_formats.py`.

Both take latents at the scale of the UNet. For any other VAE a map is fitted to the images that it decodes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image

from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.postprocess.decode import unscaled

_MAX_SIDE = 256
_SAMPLE_CELLS = 8
_SAMPLES = 16
_SPREAD = 2.0  # standard deviation of the corners; interpolated values between them spread half as far

# The red, green and blue weights of each latent channel.
_SD = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)
_SDXL = (
    (0.3920, 0.4054, 0.4549),
    (-0.2634, -0.0196, 0.0653),
    (0.0568, 0.1687, -0.0755),
    (-0.3112, -0.2359, -0.2076),
)
_SD_SCALE, _SDXL_SCALE = 0.18215, 0.13025


@dataclass(frozen=True)
class LatentColours:
    """The linear map: `weights` has a row for each channel of latents, `bias` is added; colours in -1..1."""

    weights: torch.Tensor
    bias: torch.Tensor

    def image(self, latents: torch.Tensor) -> Image.Image:
        """Return a small image of one row of latents."""
        colours = torch.einsum("chw,cr->hwr", latents[0].float().cpu(), self.weights) + self.bias
        shades = ((colours.nan_to_num() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        image = Image.fromarray(shades.numpy())
        scale = max(1, min(8, _MAX_SIDE // max(image.size)))
        return image.resize((image.width * scale, image.height * scale), Image.Resampling.BILINEAR)


def colours(pipeline: Any) -> LatentColours:
    """Return the map for a pipeline's VAE: a published one for the known VAEs, a fitted one for any other."""
    config = pipeline.vae.config
    usual = tuple(config.block_out_channels) == (128, 256, 512, 512) and config.latent_channels == len(_SD)
    if usual and type(pipeline) is StableDiffusionPipeline and config.scaling_factor == _SD_SCALE:
        return LatentColours(torch.tensor(_SD), torch.zeros(3))
    if usual and type(pipeline) is StableDiffusionXLPipeline and config.scaling_factor == _SDXL_SCALE:
        return LatentColours(torch.tensor(_SDXL), torch.zeros(3))
    with torch.inference_mode():
        return fitted(pipeline.vae)


def fitted(vae: Any) -> LatentColours:
    """Fit the least-squares map from smooth random latents to the images that the VAE decodes from them."""
    generator = torch.Generator("cpu").manual_seed(0)
    channels, factor = vae.config.latent_channels, 2 ** (len(vae.config.block_out_channels) - 1)
    coarse = _SPREAD * torch.randn((_SAMPLES, channels, 2, 2), generator=generator)
    latents = torch.nn.functional.interpolate(coarse, size=_SAMPLE_CELLS, mode="bilinear")
    decoded = vae.decode(unscaled(vae, latents.to(vae.device)).to(vae.dtype), return_dict=False)[0]
    pixels = torch.nn.functional.avg_pool2d(decoded.float().cpu(), factor)
    flat = latents.movedim(1, -1).reshape(-1, channels)
    known = torch.cat([flat, torch.ones(len(flat), 1)], dim=1)
    solution = torch.linalg.lstsq(known, pixels.movedim(1, -1).reshape(-1, 3)).solution
    return LatentColours(solution[:-1], solution[-1])


def due(task: ImageTask) -> int | None:
    """Return the number of the preview to make after the latest step; None: no preview is due."""
    wanted = task.request.output.previews
    for number in range(wanted):
        if task.step == max(1, task.steps * (number + 1) // (wanted + 1)) and task.step < task.steps:
            return number
    return None
