# SPDX-License-Identifier: Apache-2.0
"""From chunks of tokens to hidden states of a CLIP text encoder, weighted as AUTOMATIC1111 weighs them."""

from collections.abc import Sequence
from typing import Any

import torch

from sd_runtime.diffusion.prompt_chunks import Chunk


def run(encoder: Any, prompts: Sequence[Sequence[Chunk]], *, layers: bool) -> Any:
    """The encoder's output for the chunks of all prompts, one row each; with every layer's states if `layers`."""
    chunks = [chunk for prompt in prompts for chunk in prompt]
    ids = torch.tensor([chunk.ids for chunk in chunks], device=encoder.device)
    return encoder(ids, attention_mask=_mask(encoder, chunks), output_hidden_states=layers)


def joined(hidden: torch.Tensor, prompts: Sequence[Sequence[Chunk]]) -> list[torch.Tensor]:
    """Hidden states (chunks, tokens, width) of all prompts, as weighted rows (1, chunks x tokens, width) of each."""
    parts = hidden.split([len(chunks) for chunks in prompts])
    weighed = [_weighed(part, chunks) for part, chunks in zip(parts, prompts, strict=True)]
    return [part.reshape(1, -1, part.shape[-1]) for part in weighed]


def firsts(pooled: torch.Tensor, prompts: Sequence[Sequence[Chunk]]) -> list[torch.Tensor]:
    """Of the pooled encodings (chunks, width) of all prompts the first of each, (1, width)."""
    return [part[:1] for part in pooled.split([len(chunks) for chunks in prompts])]


def _mask(encoder: Any, chunks: Sequence[Chunk]) -> torch.Tensor | None:
    """Without it CLIP attends to the padding, too: few models are trained otherwise."""
    if not getattr(encoder.config, "use_attention_mask", False):
        return None
    rows = [[1] * chunk.used + [0] * (len(chunk.ids) - chunk.used) for chunk in chunks]
    return torch.tensor(rows, device=encoder.device)


def _weighed(hidden: torch.Tensor, chunks: Sequence[Chunk]) -> torch.Tensor:
    if all(chunk.weights is None for chunk in chunks):
        return hidden
    rows = [_weigh(row, chunk.weights) for row, chunk in zip(hidden, chunks, strict=True)]
    return torch.stack(rows)


def _weigh(hidden: torch.Tensor, weights: Sequence[float] | None) -> torch.Tensor:
    """The states (tokens, width) of one chunk, times the weight of each token, with the mean that they had."""
    if weights is None:
        return hidden
    exact = hidden.float()
    scaled = exact * torch.tensor(weights, device=hidden.device).unsqueeze(-1)
    ratio = (exact.mean() / scaled.mean()).nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
    return (scaled * ratio).to(hidden.dtype)
