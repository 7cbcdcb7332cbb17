# SPDX-License-Identifier: Apache-2.0
"""Prompts as the chunks of tokens that CLIP text encoders take: 77 tokens each, begin and end included.

A prompt that is longer takes several chunks. Each is encoded alone, and the UNet attends to all of them, as in
AUTOMATIC1111 and ComfyUI. One chunk is exactly what the stock pipeline encodes.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sd_runtime.engine.prompts.syntax import Section
from sd_runtime.errors import InvalidRequest

MAX_CHUNKS = 128
"""Most chunks of a prompt: 9,600 tokens. Each adds 77 rows to every cross attention of the UNet."""

Token = tuple[int, float]


class Chunk(NamedTuple):
    """One input of a text encoder.

    Attributes:
        ids: tokens, padded to the encoder's length.
        used: those before the padding.
        weights: of each token; None: all 1.
    """

    ids: tuple[int, ...]
    used: int
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class PromptChunks:
    """A prompt, ready to be encoded; equal prompts have equal encodings.

    Attributes:
        encoders: for each text encoder its chunks; all have equally many.
        clip_skip: last layers that are left out; None: as the model was trained.
    """

    encoders: tuple[tuple[Chunk, ...], ...]
    clip_skip: int | None = None

    def __len__(self) -> int:
        """Chunks of each encoder."""
        return len(self.encoders[0])


class Chunker:
    """Cuts prompts for one text encoder; used by any thread."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        self._tokenizer = tokenizer
        self._length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        self._lock = threading.Lock()  # Fast tokenizers fail where two threads use one.
        self.empty = self._chunk([])

    def cut(self, sections: Iterable[Section]) -> list[Chunk]:
        """The chunks of a prompt; each section starts a new one."""
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
    """A prompt for several text encoders; one whose tokenizer needs fewer chunks gets empty ones.

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
    """The prompt with empty chunks up to `count` for each encoder; a UNet call takes one length."""
    encoders = tuple(
        (*chunks, *[chunker.empty] * (count - len(chunks)))
        for chunks, chunker in zip(prompt.encoders, chunkers, strict=True)
    )
    return replace(prompt, encoders=encoders)
