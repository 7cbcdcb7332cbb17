# SPDX-License-Identifier: Apache-2.0
"""The conditions that the UNets of the known pipelines take beside latents and timestep.

Conditions are tensors by name, with one row for each row of the UNet call. With guidance the negative prompt comes first,
then the prompt.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.prompts import encoding
from sd_runtime.engine.prompts.chunks import Chunker, PromptChunks, cut, padded
from sd_runtime.engine.prompts.syntax import parse
from sd_runtime.errors import InvalidRequest

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
"""Components of the pipelines that encode prompts."""
Conditions = dict[str, torch.Tensor]


class Family(Protocol):
    """A family of pipelines whose UNets take the same conditions."""

    def rows(self, guidance: float) -> int:
        """Return the number of rows of a UNet call that one image takes."""

    def prompts(self, request: ImageRequest) -> tuple[PromptChunks, ...]:
        """Return the prompts to encode for a request: the prompt, then the negative prompt if the request is guided.

        Both have the same number of chunks.

        Raises:
            InvalidRequest: a prompt cannot be parsed.
        """

    def encode(self, prompts: Sequence[PromptChunks]) -> list[Conditions]:
        """Encode the prompts, one row each."""

    def conditions(self, request: ImageRequest, positive: Conditions, negative: Conditions) -> Conditions:
        """Return all conditions of one image."""


class StableDiffusion:
    """SD 1.x and 2.x, and models distilled from them."""

    _left_out = 0  # the number of last layers of the text encoders that the model was trained without

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._distilled = pipeline.unet.config.time_cond_proj_dim
        self._encoders = self._text_encoders()
        self._chunkers = [Chunker(tokenizer, encoder) for tokenizer, encoder in self._encoders]

    def _text_encoders(self) -> list[tuple[Any, Any]]:
        """Return pairs of tokenizer and text encoder, in the order of their hidden states."""
        return [(self._pipeline.tokenizer, self._pipeline.text_encoder)]

    def rows(self, guidance: float) -> int:
        """Return 2 with guidance, else 1; a distilled model takes the guidance as an input and computes one row."""
        return 2 if guidance > 1 and self._distilled is None else 1

    def prompts(self, request: ImageRequest) -> tuple[PromptChunks, ...]:
        """Return the prompt, then the negative prompt if the request is guided."""
        texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
        if self.rows(request.guidance or 0.0) == 1:
            del texts["negative_prompt"]
        prompts = [
            cut(name, parse(name, text, request.prompt_syntax), self._chunkers)
            for name, text in texts.items()
        ]
        # As in the stock pipeline, clip_skip does not apply to the negative prompt.
        prompts[0] = replace(prompts[0], clip_skip=self._clip_skip(request))
        count = max(len(prompt) for prompt in prompts)
        return tuple(padded(prompt, count, self._chunkers) for prompt in prompts)

    def _clip_skip(self, request: ImageRequest) -> int | None:
        layers = min(int(encoder.config.num_hidden_layers) for _, encoder in self._encoders)
        most = layers - self._left_out
        if request.clip_skip is not None and not 0 <= request.clip_skip <= most:
            raise InvalidRequest(
                f"clip_skip: got {request.clip_skip}: must be from 0 to {most} for this model", "clip_skip"
            )
        return request.clip_skip

    def encode(self, prompts: Sequence[PromptChunks]) -> list[Conditions]:
        """Return the last hidden states of the text encoder, or those of the layer that `clip_skip` selects."""
        ((_, encoder),) = self._encoders
        layers = any(prompt.clip_skip is not None for prompt in prompts)
        masked = bool(getattr(encoder.config, "use_attention_mask", False))
        output = encoding.run(encoder, prompts, 0, layers=layers, masked=masked)

        def states(clip_skip: int | None) -> torch.Tensor:
            if clip_skip is None:
                return output[0].to(encoder.dtype)
            # The last hidden states have passed this norm; in transformers 5 it is in the encoder itself.
            norm = getattr(encoder, "text_model", encoder).final_layer_norm
            return norm(output.hidden_states[-(clip_skip + 1)]).to(encoder.dtype)

        return [{"encoder_hidden_states": row} for row in encoding.joined(states, prompts, 0)]

    def conditions(self, request: ImageRequest, positive: Conditions, negative: Conditions) -> Conditions:
        """Return the text conditions, and the guidance if the model takes it as an input."""
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
    """SDXL: two text encoders, a pooled encoding, and the size of the image."""

    _left_out = 1

    def _text_encoders(self) -> list[tuple[Any, Any]]:
        """Return both encoders, or the second one alone, as the stock pipeline does."""
        pipeline = self._pipeline
        second = (pipeline.tokenizer_2, pipeline.text_encoder_2)
        return [second] if pipeline.text_encoder is None else [*super()._text_encoders(), second]

    def encode(self, prompts: Sequence[PromptChunks]) -> list[Conditions]:
        """Return the second-to-last hidden states of each encoder, concatenated, and the last encoder's pooled encoding."""
        hidden, pooled = [], []
        for index, (_, encoder) in enumerate(self._encoders):
            output = encoding.run(encoder, prompts, index, layers=True)
            layers = output.hidden_states
            hidden.append(encoding.joined(lambda skip: layers[-(skip or 0) - 2], prompts, index))  # noqa: B023
            pooled = encoding.firsts(output[0], prompts)
        dtype = self._encoders[-1][1].dtype
        return [
            {"encoder_hidden_states": torch.cat(states, dim=-1).to(dtype), "text_embeds": pool}
            for *states, pool in zip(*hidden, pooled, strict=True)
        ]

    def conditions(self, request: ImageRequest, positive: Conditions, negative: Conditions) -> Conditions:
        """Return the text and size conditions."""
        if not request.negative_prompt and self._pipeline.config.force_zeros_for_empty_prompt:
            negative = {name: torch.zeros_like(tensor) for name, tensor in positive.items()}
        found = super().conditions(request, positive, negative)
        found["time_ids"] = self._size(request, found["text_embeds"])
        return found

    def _size(self, request: ImageRequest, pooled: torch.Tensor) -> torch.Tensor:
        """Return original size, crop offset and target size, without a crop, as the stock pipeline does."""
        size = (request.height, request.width)
        ids = torch.tensor([[*size, 0, 0, *size]], dtype=pooled.dtype, device=pooled.device)
        return ids.expand(len(pooled), -1)


_FAMILIES: dict[type, type[StableDiffusion]] = {
    StableDiffusionPipeline: StableDiffusion,
    StableDiffusionXLPipeline: StableDiffusionXL,
}


def family_of(pipeline: Any) -> Family | None:
    """Return the family of a pipeline; None if it must generate by its own `__call__`."""
    family = _FAMILIES.get(type(pipeline))
    return None if family is None else family(pipeline)
