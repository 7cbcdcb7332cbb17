# SPDX-License-Identifier: Apache-2.0
"""A cache of prompt encodings: a common negative prompt or a popular prompt is encoded once."""

import time
from collections import OrderedDict
from collections.abc import Iterable

from sd_runtime.engine.lora.lora_switch import Active, LoraSwitch
from sd_runtime.engine.pipelines.families import Conditions, Family
from sd_runtime.engine.prompts.chunks import PromptChunks
from sd_runtime.observability.observer import Observer

_KEPT = 256  # chunks: 80 MB for SDXL


class PromptCache:
    """Encodes prompts and keeps the latest encodings; each set of LoRAs and strengths has its own encodings."""

    def __init__(self, family: Family, loras: LoraSwitch, observer: Observer, kept: int = _KEPT) -> None:
        """Create an empty cache.

        Args:
            family: the family of the pipeline.
            loras: the LoRA switch of the text encoders.
            observer: receives counts and times of encodings.
            kept: the largest number of chunks in the cache.
        """
        self._family = family
        self._loras = loras
        self._observer = observer
        self._kept = kept
        self._chunks = 0
        self._encodings: OrderedDict[tuple[PromptChunks, Active], Conditions] = OrderedDict()

    def __len__(self) -> int:
        return len(self._encodings)

    def encode(self, prompts: Iterable[PromptChunks], loras: Active) -> dict[PromptChunks, Conditions]:
        """Return the encoding of each prompt with these LoRAs; one call encodes all new prompts."""
        wanted = list(dict.fromkeys(prompts))
        found = {each: self._encodings[each, loras] for each in wanted if (each, loras) in self._encodings}
        new = [each for each in wanted if each not in found]
        if new:
            self._loras.activate(*loras)
            found |= self._encode(new)
        self._observer.texts(cached=len(wanted) - len(new), encoded=len(new))
        for each in wanted:
            self._encodings[each, loras] = found[each]
            self._encodings.move_to_end((each, loras))
        self._forget(new)
        return found

    def _forget(self, new: list[PromptChunks]) -> None:
        self._chunks += sum(len(each) for each in new)
        while self._chunks > self._kept:
            (oldest, _), _ = self._encodings.popitem(last=False)
            self._chunks -= len(oldest)

    def _encode(self, prompts: list[PromptChunks]) -> dict[PromptChunks, Conditions]:
        began = time.monotonic()
        # The rows are cloned, since one row of the batch would keep the whole batch in memory.
        rows = self._family.encode(prompts)
        rows = [{name: tensor.clone() for name, tensor in row.items()} for row in rows]
        self._observer.phase("encode", time.monotonic() - began)
        return dict(zip(prompts, rows, strict=True))
