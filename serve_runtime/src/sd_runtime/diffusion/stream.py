# SPDX-License-Identifier: Apache-2.0
"""What one request has been told: written by the engine's threads, read on the event loop."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from sd_runtime.diffusion.drawing import Drawing
from sd_runtime.engine import Picture, Progress, Update

# Between two steps that are told: each crosses from the replica to the ingress, and a small model takes a hundred a second.
_TOLD_SECONDS = 0.1


class Stream:
    """Updates of a request, in order; Progress that nobody has read yet is replaced by newer.

    Attributes:
        drawings: the pictures of the request.
    """

    def __init__(self, drawings: Sequence[Drawing], loop: asyncio.AbstractEventLoop) -> None:
        self.drawings = drawings
        self._loop = loop
        self._unread: deque[Update | Exception] = deque()
        self._arrived = asyncio.Event()
        self._ahead = -1
        self._told = 0.0

    async def updates(self) -> AsyncIterator[Update]:
        """All of them, until each picture has come.

        Raises:
            RuntimeFailure: a picture failed.
        """
        missing = len(self.drawings)
        while missing:
            while not self._unread:
                self._arrived.clear()
                await self._arrived.wait()
            update = self._unread.popleft()
            if isinstance(update, Exception):
                raise update
            missing -= isinstance(update, Picture)
            yield update

    def cancel(self) -> None:
        """Nobody wants what is missing."""
        for drawing in self.drawings:
            drawing.cancelled = True

    def advanced(self) -> None:
        """Some of its pictures took a step; all but the first and the last are told ten times a second at most."""
        now, progress = time.monotonic(), self._progress(0)
        if self._ahead == 0 and progress.step < progress.steps and now - self._told < _TOLD_SECONDS:
            return
        self._ahead, self._told = 0, now
        self.put(progress)

    def waits(self, ahead: int) -> None:
        """Its first picture waits behind so many."""
        if ahead != self._ahead:
            self._ahead = ahead
            self.put(self._progress(ahead))

    def _progress(self, ahead: int) -> Progress:
        steps = sum(drawing.request.steps or 0 for drawing in self.drawings)
        return Progress(ahead, sum(drawing.steps_done for drawing in self.drawings), steps)

    def put(self, update: Update | Exception) -> None:
        """Tell the reader; from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody reads
            self._loop.call_soon_threadsafe(self._take, update)

    def _take(self, update: Update | Exception) -> None:
        if isinstance(update, Progress) and self._unread and isinstance(self._unread[-1], Progress):
            self._unread.pop()
        self._unread.append(update)
        self._arrived.set()
