# SPDX-License-Identifier: Apache-2.0
"""What the UNets of the known pipelines want to be told beside latents and time.

Conditions are tensors by name, one row for each row of the UNet call: first what to avoid, if there is guidance,
then what to draw.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from sd_runtime.engine import ImageRequest

Conditions = dict[str, torch.Tensor]


class Family(Protocol):
    """Pipelines whose UNet is told the same."""

    def rows(self, guidance: float) -> int:
        """Rows of a UNet call that one picture takes."""

    def encode(self, texts: Sequence[str]) -> list[Conditions]:
        """The encoding of each text, one row each."""

    def conditions(self, request: ImageRequest, positive: Conditions, negative: Conditions) -> Conditions:
        """All conditions of one picture."""


class StableDiffusion:
    """SD 1.x and 2.x, and models distilled from them."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._distilled = pipeline.unet.config.time_cond_proj_dim

    def rows(self, guidance: float) -> int:
        """Distilled models are told the guidance instead of computing twice."""
        return 2 if guidance > 1 and self._distilled is None else 1

    def encode(self, texts: Sequence[str]) -> list[Conditions]:
        """The hidden states of the text encoder."""
        hidden, _ = self._pipeline.encode_prompt(list(texts), self._pipeline.device, 1, False)
        return [{"encoder_hidden_states": row} for row in hidden.split(1)]

    def conditions(self, request: ImageRequest, positive: Conditions, negative: Conditions) -> Conditions:
        """Text, and guidance if the model is told of it."""
        guidance = request.guidance or 0.0
        if self.rows(guidance) == 2:  # noqa: PLR2004 - guided
            return {name: torch.cat([negative[name], positive[name]]) for name in positive}
        return positive | self._guidance(guidance, positive["encoder_hidden_states"])

    def _guidance(self, guidance: float, like: torch.Tensor) -> Conditions:
        if self._distilled is None:
            return {}
        embedding = self._pipeline.get_guidance_scale_embedding(
            torch.tensor(guidance - 1).repeat(1), embedding_dim=self._distilled
        )
        return {"timestep_cond": embedding.to(device=like.device, dtype=like.dtype)}


class StableDiffusionXL(StableDiffusion):
    """SDXL: two text encoders, a pooled encoding, and the picture's size."""

    def encode(self, texts: Sequence[str]) -> list[Conditions]:
        """Hidden states and pooled encoding."""
        hidden, _, pooled, _ = self._pipeline.encode_prompt(
            prompt=list(texts), device=self._pipeline.device, do_classifier_free_guidance=False
        )
        rows = zip(hidden.split(1), pooled.split(1), strict=True)
        return [{"encoder_hidden_states": row, "text_embeds": pool} for row, pool in rows]

    def conditions(self, request: ImageRequest, positive: Conditions, negative: Conditions) -> Conditions:
        """Text and size."""
        if not request.negative_prompt and self._pipeline.config.force_zeros_for_empty_prompt:
            negative = {name: torch.zeros_like(tensor) for name, tensor in positive.items()}
        found = super().conditions(request, positive, negative)
        found["time_ids"] = self._size(request, found["text_embeds"])
        return found

    def _size(self, request: ImageRequest, pooled: torch.Tensor) -> torch.Tensor:
        """Of the original and the wanted picture, with no crop: as the stock pipeline says it."""
        size = (request.height, request.width)
        ids = torch.tensor([[*size, 0, 0, *size]], dtype=pooled.dtype, device=pooled.device)
        return ids.expand(len(pooled), -1)


_FAMILIES: dict[type, type[StableDiffusion]] = {
    StableDiffusionPipeline: StableDiffusion,
    StableDiffusionXLPipeline: StableDiffusionXL,
}


def family_of(pipeline: Any) -> Family | None:
    """The family of a pipeline; None if it must draw by its own `__call__`."""
    family = _FAMILIES.get(type(pipeline))
    return None if family is None else family(pipeline)
