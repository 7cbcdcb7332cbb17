# SPDX-License-Identifier: Apache-2.0
"""The updates of one request: the engine's threads write them, the event loop reads them."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.interface import Picture, Progress, Update

# Least time between two Progress updates. Each crosses from the replica to the ingress, and a small model takes a
# hundred steps a second.
_REPORT_SECONDS = 0.1


class RequestUpdates:
    """Updates of a request, in order; a newer Progress replaces an unread one.

    Progress is reported ten times a second at most. The first position in the queue, the first step and the last
    step are always reported.

    Attributes:
        tasks: the image tasks of the request.
    """

    def __init__(
        self,
        tasks: Sequence[ImageTask],
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tasks = tasks
        self._loop = loop
        self._clock = clock
        self._unread: deque[Update | Exception] = deque()
        self._arrived = asyncio.Event()
        self._reported: Progress | None = None
        self._reported_at = 0.0

    async def updates(self) -> AsyncIterator[Update]:
        """Yield all updates, until each image has arrived.

        Raises:
            RuntimeFailure: an image failed.
        """
        missing = len(self.tasks)
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
        """Cancel the image tasks of the request that are not finished."""
        for task in self.tasks:
            task.cancelled = True

    def advanced(self) -> None:
        """Report that some images of the request took a step."""
        progress = self._progress(0)
        first = self._reported is None or self._reported.step == 0
        self._report(progress, always=first or progress.step == progress.steps)

    def waits(self, ahead: int) -> None:
        """Report that the first image of the request waits behind `ahead` other images."""
        if self._reported is None or ahead != self._reported.ahead:
            self._report(self._progress(ahead), always=self._reported is None)

    def _report(self, progress: Progress, *, always: bool) -> None:
        now = self._clock()
        if always or now - self._reported_at >= _REPORT_SECONDS:
            self._reported, self._reported_at = progress, now
            self.put(progress)

    def _progress(self, ahead: int) -> Progress:
        steps = sum(task.request.steps or 0 for task in self.tasks)
        done = sum(task.steps_done for task in self.tasks)
        return Progress(ahead, done, steps, self.tasks[0].warnings)

    def put(self, update: Update | Exception) -> None:
        """Send an update to the reader; any thread may call this."""
        with suppress(RuntimeError):  # the loop is closed, so no reader is left
            self._loop.call_soon_threadsafe(self._take, update)

    def _take(self, update: Update | Exception) -> None:
        if isinstance(update, Progress) and self._unread and isinstance(self._unread[-1], Progress):
            self._unread.pop()
        self._unread.append(update)
        self._arrived.set()
