# SPDX-License-Identifier: Apache-2.0
"""Answers that many ask for at the same time: one request for all of them, and its answer for a few seconds."""

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
    """Remembers by key what was read; holds nothing that another reading would not give.

    Args:
        seconds: how long an answer is good for.
        clock: seconds that only grow.
        most: keys to remember; what was asked for longest ago goes first.
    """

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, most: int = _MOST
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._most = most
        self._entries: dict[K, _Entry[V]] = {}

    async def get(self, key: K, read: Callable[[], Awaitable[V]], *, anew: bool = False) -> V:
        """The answer for a key, read if there is none that is good.

        Args:
            key: what is asked about.
            read: asks.
            anew: an answer counts only if its reading began after this call.
        """
        asked, entry = self._clock(), self._entry(key)
        async with entry.lock:
            is_old = entry.read_at < (asked if anew else asked - self._seconds)
            if entry.value is None or is_old or entry.read_at <= entry.changed_at:
                began = self._clock()
                entry.value, entry.read_at = await read(), began
            return entry.value

    def changed(self, key: K) -> None:
        """An answer whose reading began before now is good no more."""
        if key in self._entries:
            self._entries[key].changed_at = self._clock()

    def _entry(self, key: K) -> _Entry[V]:
        entry = self._entries.pop(key, None) or _Entry[V]()
        self._entries[key] = entry  # the latest is the last
        idle = (each for each, found in self._entries.items() if not found.lock.locked())
        while len(self._entries) > self._most and (oldest := next(idle, key)) != key:
            del self._entries[oldest]
            idle = (each for each, found in self._entries.items() if not found.lock.locked())
        return entry
