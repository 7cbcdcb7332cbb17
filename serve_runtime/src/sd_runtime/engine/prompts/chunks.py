# SPDX-License-Identifier: Apache-2.0
"""Prompts as chunks of tokens for CLIP text encoders: 77 tokens each, start and end token included.

A longer prompt takes several chunks. Each chunk is encoded alone, and the UNet attends to all of them, as in
AUTOMATIC1111 and ComfyUI. A prompt of one chunk is encoded exactly as in the stock pipeline.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sd_runtime.engine.prompts.syntax import Section
from sd_runtime.errors import InvalidRequest

MAX_CHUNKS = 128
"""The maximum number of chunks of a prompt: 9,600 tokens. Each adds 77 rows to every cross attention of the UNet."""

Token = tuple[int, float]


class Chunk(NamedTuple):
    """One input of a text encoder.

    Attributes:
        ids: tokens, padded to the encoder's length.
        used: the number of tokens before the padding.
        weights: the weight of each token; None: every weight is 1.
    """

    ids: tuple[int, ...]
    used: int
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class PromptChunks:
    """A prompt, ready to be encoded; equal prompts have equal encodings.

    Attributes:
        encoders: the chunks of each text encoder; every encoder has the same number.
        clip_skip: the number of last layers to skip; None: as the model was trained.
    """

    encoders: tuple[tuple[Chunk, ...], ...]
    clip_skip: int | None = None

    def __len__(self) -> int:
        """Return the number of chunks of each encoder."""
        return len(self.encoders[0])


class Chunker:
    """Cuts prompts into chunks for one text encoder; any thread may use it."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        self._tokenizer = tokenizer
        self._length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        self._lock = threading.Lock()  # A fast tokenizer fails when two threads use it.
        self.empty = self._chunk([])

    def cut(self, sections: Iterable[Section]) -> list[Chunk]:
        """Return the chunks of a prompt; each section starts a new chunk."""
        room = self._length - 2
        chunks = []
        for section in sections:
            tokens = self._tokens(section)
            chunks += [self._chunk(tokens[at : at + room]) for at in range(0, max(1, len(tokens)), room)]
        return chunks

    def _tokens(self, section: Section) -> list[Token]:
        with self._lock:
            encoded = [
                self._tokenizer(each.text, add_special_tokens=False, truncation=False, verbose=False)
                for each in section
            ]
        return [
            (token, fragment.weight)
            for fragment, found in zip(section, encoded, strict=True)
            for token in found["input_ids"]
        ]

    def _chunk(self, tokens: Sequence[Token]) -> Chunk:
        known = self._tokenizer
        ids = [known.bos_token_id, *(token for token, _ in tokens), known.eos_token_id]
        weights = [1.0, *(weight for _, weight in tokens), 1.0]
        room = self._length - len(ids)
        plain = all(weight == 1 for weight in weights)
        return Chunk(
            ids=(*ids, *[known.pad_token_id] * room),
            used=len(ids),
            weights=None if plain else (*weights, *[1.0] * room),
        )


def cut(name: str, sections: Sequence[Section], chunkers: Sequence[Chunker]) -> PromptChunks:
    """Cut a prompt for several text encoders; an encoder that needs fewer chunks gets empty ones.

    Raises:
        InvalidRequest: the prompt takes more than MAX_CHUNKS.
    """
    cut_for_each = [chunker.cut(sections) for chunker in chunkers]
    count = max(len(chunks) for chunks in cut_for_each)
    if count > MAX_CHUNKS:
        raise InvalidRequest(
            f"{name}: got {count} chunks of {len(cut_for_each[0][0].ids) - 2} tokens: must be at most {MAX_CHUNKS}",
            name,
        )
    return padded(PromptChunks(tuple(tuple(chunks) for chunks in cut_for_each)), count, chunkers)


def padded(prompt: PromptChunks, count: int, chunkers: Sequence[Chunker]) -> PromptChunks:
    """Pad the prompt with empty chunks to `count` for each encoder; a UNet call takes one length."""
    encoders = tuple(
        (*chunks, *[chunker.empty] * (count - len(chunks)))
        for chunks, chunker in zip(prompt.encoders, chunkers, strict=True)
    )
    return replace(prompt, encoders=encoders)
