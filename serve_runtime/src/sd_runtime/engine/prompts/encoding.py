# SPDX-License-Identifier: Apache-2.0
"""Encoding of token chunks into hidden states of a CLIP text encoder, weighted as in AUTOMATIC1111."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from sd_runtime.engine.prompts.chunks import Chunk, PromptChunks


def run(
    encoder: Any, prompts: Sequence[PromptChunks], index: int, *, layers: bool, masked: bool = False
) -> Any:
    """Run text encoder number `index` on the chunks of all prompts, one row per chunk.

    Args:
        encoder: the text encoder.
        prompts: the prompts to encode.
        index: the index of the encoder in the pipeline.
        layers: also return the states of every layer.
        masked: do not attend to padding. CLIP attends to it, and few models are trained otherwise.
    """
    chunks = [chunk for prompt in prompts for chunk in prompt.encoders[index]]
    ids = torch.tensor([chunk.ids for chunk in chunks], device=encoder.device)
    mask = _mask(chunks, encoder.device) if masked else None
    return encoder(ids, attention_mask=mask, output_hidden_states=layers)


def joined(
    states: Callable[[int | None], torch.Tensor], prompts: Sequence[PromptChunks], index: int
) -> list[torch.Tensor]:
    """Return the weighted hidden states of each prompt, its chunks concatenated: (1, chunks x tokens, width).

    Args:
        states: returns the states of the chunks of all prompts (chunks, tokens, width) for a `clip_skip`.
        prompts: the prompts, in the order of these chunks.
        index: the index of the encoder in the pipeline.
    """
    by_skip = {skip: states(skip) for skip in {prompt.clip_skip for prompt in prompts}}
    counts = [len(prompt) for prompt in prompts]
    starts = itertools.accumulate(counts, initial=0)
    parts = [
        _weighed(by_skip[prompt.clip_skip][start : start + count], prompt.encoders[index])
        for prompt, start, count in zip(prompts, starts, counts, strict=False)
    ]
    return [part.reshape(1, -1, part.shape[-1]) for part in parts]


def firsts(pooled: torch.Tensor, prompts: Sequence[PromptChunks]) -> list[torch.Tensor]:
    """Return the pooled encoding of each prompt's first chunk, (1, width), from those of all chunks (chunks, width)."""
    return [part[:1] for part in pooled.split([len(prompt) for prompt in prompts])]


def _mask(chunks: Sequence[Chunk], device: torch.device) -> torch.Tensor:
    rows = [[1] * chunk.used + [0] * (len(chunk.ids) - chunk.used) for chunk in chunks]
    return torch.tensor(rows, device=device)


def _weighed(hidden: torch.Tensor, chunks: Sequence[Chunk]) -> torch.Tensor:
    if all(chunk.weights is None for chunk in chunks):
        return hidden
    rows = [_weigh(row, chunk.weights) for row, chunk in zip(hidden, chunks, strict=True)]
    return torch.stack(rows)


def _weigh(hidden: torch.Tensor, weights: Sequence[float] | None) -> torch.Tensor:
    """Multiply the states (tokens, width) of one chunk by the weight of each token, and restore their mean."""
    if weights is None:
        return hidden
    exact = hidden.float()
    scaled = exact * torch.tensor(weights, device=hidden.device).unsqueeze(-1)
    ratio = (exact.mean() / scaled.mean()).nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
    return (scaled * ratio).to(hidden.dtype)
