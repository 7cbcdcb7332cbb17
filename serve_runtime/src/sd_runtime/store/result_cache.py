# SPDX-License-Identifier: Apache-2.0
"""Files of seeded requests, kept by their bytes: the least recently used go first (pure)."""

from collections import OrderedDict

from sd_runtime.engine.interface import Picture


class ResultCache:
    """Holds at most so many bytes; 0 holds nothing."""

    def __init__(self, max_bytes: int = 0) -> None:
        self._entries: OrderedDict[str, tuple[Picture, ...]] = OrderedDict()
        self._held = 0
        self._max_bytes = max_bytes

    @property
    def enabled(self) -> bool:
        """Whether it holds anything at all."""
        return self._max_bytes > 0

    def resize(self, max_bytes: int) -> None:
        """Take over another bound; what no longer fits goes."""
        self._max_bytes = max_bytes
        self._shrink()

    def get(self, key: str) -> tuple[Picture, ...] | None:
        """The pictures of a request, now the most recently used."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: str, pictures: tuple[Picture, ...]) -> None:
        """Keep the pictures of a request; one too large for the whole cache displaces nothing."""
        if _size(pictures) > self._max_bytes:
            return
        self._held -= _size(self._entries.pop(key, ()))
        self._entries[key] = pictures
        self._held += _size(pictures)
        self._shrink()

    def _shrink(self) -> None:
        while self._held > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._held -= _size(oldest)


def _size(pictures: tuple[Picture, ...]) -> int:
    return sum(len(picture.data) for picture in pictures)
