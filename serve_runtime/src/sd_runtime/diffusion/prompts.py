# SPDX-License-Identifier: Apache-2.0
"""Encodings of texts, the latest kept: a negative prompt or a popular prompt is encoded once."""

import time
from collections import OrderedDict
from collections.abc import Iterable

from sd_runtime.diffusion.families import Conditions, Family
from sd_runtime.observer import Observer

_KEPT = 256  # 80 MB for SDXL


class Prompts:
    """Encodes texts; LoRAs change encodings, so those of one set are apart from those of others."""

    def __init__(self, family: Family, observer: Observer, kept: int = _KEPT) -> None:
        self._family = family
        self._observer = observer
        self._kept = kept
        self._encodings: OrderedDict[tuple[str, tuple[str, ...]], Conditions] = OrderedDict()

    def __len__(self) -> int:
        return len(self._encodings)

    def encode(self, texts: Iterable[str], loras: tuple[str, ...]) -> dict[str, Conditions]:
        """The encoding of each text under the LoRAs, which must be active; what is new goes in one call."""
        wanted = list(dict.fromkeys(texts))
        found = {text: self._encodings[text, loras] for text in wanted if (text, loras) in self._encodings}
        new = [text for text in wanted if text not in found]
        if new:
            found |= self._encode(new)
        self._observer.texts(cached=len(wanted) - len(new), encoded=len(new))
        for text in wanted:
            self._encodings[text, loras] = found[text]
            self._encodings.move_to_end((text, loras))
        while len(self._encodings) > self._kept:
            self._encodings.popitem(last=False)
        return found

    def _encode(self, texts: list[str]) -> dict[str, Conditions]:
        began = time.monotonic()
        # Clones: a row of the batch would keep all of it in memory.
        rows = self._family.encode(texts)
        rows = [{name: tensor.clone() for name, tensor in row.items()} for row in rows]
        self._observer.phase("encode", time.monotonic() - began)
        return dict(zip(texts, rows, strict=True))
