# SPDX-License-Identifier: Apache-2.0
"""A cache for shared reads: concurrent callers share one request, and its result is reused for a few seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MOST = 64


@dataclass
class _Entry(Generic[V]):
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    value: V | None = None
    read_at: float = float("-inf")
    changed_at: float = float("-inf")


class Recent(Generic[K, V]):
    """A cache by key. It contains only values that a new read would return too.

    Args:
        seconds: how long a value is valid.
        clock: a monotonic clock in seconds.
        most: maximum number of keys. The least recently used key is removed first.
    """

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, most: int = _MOST
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._most = most
        self._entries: dict[K, _Entry[V]] = {}

    async def get(self, key: K, read: Callable[[], Awaitable[V]], *, fresh: bool = False) -> V:
        """Return the value of a key. Read it if the cache has no valid value.

        Args:
            key: the key.
            read: reads the value.
            fresh: ignore a value whose read started before this call.
        """
        called, entry = self._clock(), self._entry(key)
        async with entry.lock:
            is_old = entry.read_at < (called if fresh else called - self._seconds)
            if entry.value is None or is_old or entry.read_at <= entry.changed_at:
                started = self._clock()
                entry.value, entry.read_at = await read(), started
            return entry.value

    def changed(self, key: K) -> None:
        """Invalidate the value of a key if its read started before now."""
        if key in self._entries:
            self._entries[key].changed_at = self._clock()

    def _entry(self, key: K) -> _Entry[V]:
        entry = self._entries.pop(key, None) or _Entry[V]()
        self._entries[key] = entry  # the most recently used key is the last
        idle = (each for each, found in self._entries.items() if not found.lock.locked())
        while len(self._entries) > self._most and (oldest := next(idle, key)) != key:
            del self._entries[oldest]
            idle = (each for each, found in self._entries.items() if not found.lock.locked())
        return entry
