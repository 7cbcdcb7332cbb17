# SPDX-License-Identifier: Apache-2.0
"""Measured throughput, from which Retry-After and the estimates of jobs are computed (pure; callers pass the time)."""

import math
from collections import deque

_OBSERVED = 256
_LONGEST_WAIT_SECONDS = 60


class ThroughputEstimator:
    """The rate of finished work, measured only over the time in which work is in progress.

    Rejected clients get staggered retry times: the first one after one finished request, the second after two. With equal
    times, all of them would retry at once.
    """

    def __init__(self) -> None:
        self._busy = 0.0
        self._in_progress = 0
        self._since = 0.0
        self._finished: deque[tuple[float, int]] = deque(maxlen=_OBSERVED)
        self._next_place = 0.0

    def begin(self, now: float) -> None:
        """Record that a piece of work started at `now`, in seconds."""
        self._tick(now)
        self._in_progress += 1

    def end(self, now: float, done: int) -> None:
        """Record that a piece of work ended. `done` is its number of finished units: 0 if rejected, failed or cancelled."""
        self._tick(now)
        self._in_progress -= 1
        if done:
            self._finished.append((self._busy, done))

    def per_second(self) -> float | None:
        """Finished units per busy second; None before the first unit is finished."""
        if not self._finished or self._busy <= 0:
            return None
        # In a full window the first entry only marks the start, since its work began before the window.
        full = len(self._finished) == _OBSERVED
        began = self._finished[0][0] if full else 0.0
        units = sum(done for _, done in self._finished) - (self._finished[0][1] if full else 0)
        return units / max(self._busy - began, 1e-3)

    def retry_after(self, now: float) -> int:
        """Whole seconds after which a client that is rejected at `now` should retry."""
        rate = self.per_second()
        step = 1.0 if rate is None else 1 / rate
        self._next_place = min(max(now, self._next_place) + step, now + _LONGEST_WAIT_SECONDS)
        return max(1, math.ceil(self._next_place - now))

    def _tick(self, now: float) -> None:
        if self._in_progress:
            self._busy += max(0.0, now - self._since)
        self._since = now
