# SPDX-License-Identifier: Apache-2.0
"""From latents to pixels: the VAE decoder, and the checks that stop broken and withheld images."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

from sd_runtime.engine import failures
from sd_runtime.engine.core_pool import CorePool
from sd_runtime.errors import ContentWithheld, GenerationFailed

logger = logging.getLogger(__name__)

Result = Image.Image | Exception


def widen(pipeline: Any) -> None:
    """Convert a VAE that overflows in float16 to float32; the stock pipeline does so again for each image."""
    vae = pipeline.vae
    if (
        isinstance(pipeline, StableDiffusionXLPipeline)
        and vae.dtype == torch.float16
        and vae.config.force_upcast
    ):
        vae.to(torch.float32)


def unscaled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Convert latents from the scale of the UNet to the scale of the VAE."""
    config = vae.config
    if config.latents_mean is None or config.latents_std is None:
        return latents / config.scaling_factor
    mean, std = (
        torch.tensor(each, device=latents.device, dtype=latents.dtype).view(1, -1, 1, 1)
        for each in (config.latents_mean, config.latents_std)
    )
    return latents * std / config.scaling_factor + mean


def has_safety_checker(pipeline: Any) -> bool:
    """Whether the pipeline has a network that checks finished images and may withhold them."""
    return getattr(pipeline, "safety_checker", None) is not None


class Decoder:
    """Decodes with a pipeline's VAE; one thread uses it.

    An image that does not fit into memory as a whole is decoded in overlapping tiles, whose seams are blended. From then
    on all images of its size and larger are decoded in tiles too.
    """

    def __init__(self, pipeline: Any, cores: int = 1, spare: Callable[[], int] = lambda: 1) -> None:
        """Make a decoder.

        Args:
            pipeline: the pipeline with the VAE.
            cores: the maximum number of CPU cores to use.
            spare: returns how many of these cores are free at the moment.
        """
        self._pipeline = pipeline
        self._vae = pipeline.vae
        self._pool = CorePool(cores)
        self._spare = spare
        self._too_large = math.inf  # cells of latents

    def decode(self, latents: Sequence[torch.Tensor]) -> list[Result]:
        """Return an image or an error for each row of latents; all have one size. Call it in inference mode."""
        try:
            pixels = self._pixels(torch.cat(list(latents)))
        except Exception as error:  # noqa: BLE001 - one failed image must not stop the decoding of the others
            failed = error.with_traceback(None) if failures.out_of_memory(error) else error
        else:
            return [_image(row) for row in pixels]
        if failures.out_of_memory(failed):
            failures.free_memory()
        if len(latents) == 1 and not (failures.out_of_memory(failed) and self._lessens(latents[0])):
            return [failed]
        return [result for row in latents for result in self.decode([row])]

    def _lessens(self, latents: torch.Tensor) -> bool:
        """Decode latents of this size in tiles from now on; return whether this is a change."""
        cells = _cells(latents)
        if cells >= self._too_large or not hasattr(self._vae, "tiled_decode"):
            return False
        self._too_large = cells
        logger.warning(
            "the device has not enough memory to decode latents of %s at once: they are decoded in tiles",
            "x".join(map(str, latents.shape[-2:])),
        )
        return True

    def _pixels(self, latents: torch.Tensor) -> Sequence[torch.Tensor | None]:
        """Return rows of shape (3, height, width), values 0 to 1; None where the safety checker withholds the image."""
        decoded = self._decoded_by(min(len(latents), self._spare()), latents)
        flagged = self._flagged(decoded)
        return [None if index in flagged else row / 2 + 0.5 for index, row in enumerate(decoded)]

    def _decoded_by(self, cores: int, latents: torch.Tensor) -> torch.Tensor:
        if cores == 1:
            return self._decoded(latents)
        parts = latents.tensor_split(cores)
        return torch.cat(self._pool.run([partial(self._decoded, part) for part in parts]))

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        decode = self._vae.tiled_decode if _cells(latents) >= self._too_large else self._vae.decode
        decoded: torch.Tensor = decode(unscaled(self._vae, latents).to(self._vae.dtype), return_dict=False)[0]
        return decoded

    def _flagged(self, decoded: torch.Tensor) -> set[int]:
        """Return the rows that the safety checker withholds; rows with NaN are left to the check in `_image`."""
        if not has_safety_checker(self._pipeline):
            return set()
        seen = [index for index, row in enumerate(decoded) if row.isfinite().all()]
        if not seen:
            return set()
        _, flags = self._pipeline.run_safety_checker(
            decoded[seen], self._pipeline.device, self._pipeline.unet.dtype
        )
        return {index for index, flag in zip(seen, flags, strict=True) if flag}


def _cells(latents: torch.Tensor) -> int:
    height, width = latents.shape[-2:]
    return int(height * width)


def _image(row: torch.Tensor | None) -> Result:
    if row is None:
        return ContentWithheld.image(0, 1)
    if not row.isfinite().all():
        return GenerationFailed(failures.NOT_A_NUMBER)
    shades = (row.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(shades.permute(1, 2, 0).cpu().numpy())
