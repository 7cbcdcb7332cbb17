# SPDX-License-Identifier: Apache-2.0
"""How fast work gets done, as observed; from it come Retry-After and the waiting times of jobs (pure, clock given)."""

import math
from collections import deque

_OBSERVED = 256
_LONGEST_WAIT_SECONDS = 60


class Pace:
    """Rate of finished work over a clock that stands still while there is none.

    Who is refused gets the next free place: the first refused client comes back after one finish, the second after
    two. Told the same time, they would all come back at once.
    """

    def __init__(self) -> None:
        self._busy = 0.0
        self._in_progress = 0
        self._since = 0.0
        self._finished: deque[tuple[float, int]] = deque(maxlen=_OBSERVED)
        self._next_place = 0.0

    def begin(self, now: float) -> None:
        """A piece of work was accepted at `now`, in seconds."""
        self._tick(now)
        self._in_progress += 1

    def end(self, now: float, done: int) -> None:
        """It ended; `done` units of it count as finished, 0 if it was refused, failed or cancelled."""
        self._tick(now)
        self._in_progress -= 1
        if done:
            self._finished.append((self._busy, done))

    def per_second(self) -> float | None:
        """Units finished per busy second; None before there is something to say."""
        if not self._finished or self._busy <= 0:
            return None
        # The first finish began before it was seen: from a full window it only marks where that starts.
        full = len(self._finished) == _OBSERVED
        began = self._finished[0][0] if full else 0.0
        units = sum(done for _, done in self._finished) - (self._finished[0][1] if full else 0)
        return units / max(self._busy - began, 1e-3)

    def retry_after(self, now: float) -> int:
        """Whole seconds until there is a place for a client that is refused at `now`."""
        rate = self.per_second()
        step = 1.0 if rate is None else 1 / rate
        self._next_place = min(max(now, self._next_place) + step, now + _LONGEST_WAIT_SECONDS)
        return max(1, math.ceil(self._next_place - now))

    def _tick(self, now: float) -> None:
        if self._in_progress:
            self._busy += max(0.0, now - self._since)
        self._since = now
