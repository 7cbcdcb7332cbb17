# SPDX-License-Identifier: Apache-2.0
"""An LRU cache for the image files of seeded requests, limited by bytes (pure)."""

from collections import OrderedDict

from sd_runtime.engine.interface import Picture


class ResultCache:
    """A cache of at most `max_bytes` bytes. With 0 it is off."""

    def __init__(self, max_bytes: int = 0) -> None:
        self._entries: OrderedDict[str, tuple[Picture, ...]] = OrderedDict()
        self._held = 0
        self._max_bytes = max_bytes

    @property
    def enabled(self) -> bool:
        """Whether the cache is on."""
        return self._max_bytes > 0

    def resize(self, max_bytes: int) -> None:
        """Change the maximum size, and evict entries that no longer fit."""
        self._max_bytes = max_bytes
        self._shrink()

    def get(self, key: str) -> tuple[Picture, ...] | None:
        """The images of a request, or None. The entry becomes the most recently used."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: str, pictures: tuple[Picture, ...]) -> None:
        """Store the images of a request. An entry larger than the whole cache is not stored and evicts nothing."""
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
