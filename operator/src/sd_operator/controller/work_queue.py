# SPDX-License-Identifier: Apache-2.0
"""The work queue by key: many events become one pass, and one key is handled by one worker at a time.

- A key that is added during its pass gets another pass afterwards, so no event is lost.
- A key that fails is retried after its own pause, which doubles, so one broken resource does not slow the others.
- A pass may request the next one after a while; an event that comes first starts it earlier.
- Without events, the requeue interval grows to five minutes. A thousand resources that wait for the same thing therefore do
  not fill the queue.
- A pass without an event, such as that of every resource after a start, waits until no key with an event waits.
- A token bucket spreads the passes. A pass that has read its objects beforehand takes no token, because the bucket limits
  requests to the API server.
"""

import asyncio
import itertools
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sd_operator.errors import SdServiceError
from sd_operator.naming import Key

logger = logging.getLogger(__name__)

_SAVED_SECONDS = 2.0
_REQUEUES_GROW = 1.25  # each pause is then a fifth of the time waited so far
_LONGEST_REQUEUE_SECONDS = 300.0
_EVENT, _ROUTINE = 0, 1  # in this order


class TokenBucket:
    """A token bucket: a constant rate, and a burst of at most two seconds' tokens."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._rate = per_second
        self._clock = clock
        self._full_at = float("-inf")

    async def take(self) -> None:
        """Wait for a token; waiting callers get tokens in their order."""
        # The time at which the bucket is full again determines its current level.
        self._full_at = max(self._full_at, self._clock()) + 1 / self._rate
        wait = self._full_at - self._clock() - _SAVED_SECONDS
        if wait > 0:
            await asyncio.sleep(wait)

    def put_back(self) -> None:
        """Return a token that was not used."""
        self._full_at -= 1 / self._rate


Work = Callable[[Key], Awaitable[float | None]]
"""Handles a key; returns the seconds until the next pass if no event arrives before, None for no such pass."""


class WorkQueue:
    """A deduplicating queue with per-key back-off and a bound on concurrency."""

    def __init__(
        self,
        work: Work,
        *,
        workers: int,
        retry_base_seconds: float,
        retry_cap_seconds: float,
        per_second: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work = work
        self._workers = workers
        self._base = retry_base_seconds
        self._cap = retry_cap_seconds
        self._clock = clock
        self._bucket = TokenBucket(per_second, clock)
        self._ready: asyncio.PriorityQueue[tuple[int, int, Key]] = asyncio.PriorityQueue()
        self._numbers = itertools.count()
        self._waiting: dict[Key, int] = {}
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._requeue_timers: dict[Key, asyncio.TimerHandle] = {}
        self._requeues: dict[Key, float] = {}  # the latest pause, where no event came since
        self._prepared: dict[Key, Work] = {}
        self._prepared_taken = asyncio.Event()

    def add(self, key: Key) -> None:
        """Request a pass soon, after an event; never blocks, never raises.

        A pause after a failure stays in effect, so events of a failing key do not cause a busy loop.
        """
        self._requeues.pop(key, None)
        self._prepared.pop(key, None)
        self._put(key, _EVENT)

    def add_routine(self, key: Key) -> None:
        """Request a pass once no key with an event waits."""
        self._put(key, _ROUTINE)

    def add_prepared(self, key: Key, work: Work) -> None:
        """Request a pass once no key with an event waits, by work that has read its objects beforehand.

        This work takes no token. If an event comes first, it is newer than these objects, so the queue's own work runs.
        """
        if self._put(key, _ROUTINE):
            self._prepared[key] = work

    async def prepared_left(self, most: int, seconds: float) -> None:
        """Wait until at most `most` prepared passes are left; after `seconds`, the queue's own work replaces them."""
        deadline = self._clock() + seconds
        while len(self._prepared) > most and (wait := deadline - self._clock()) > 0:
            self._prepared_taken.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._prepared_taken.wait(), wait)
        if len(self._prepared) > most:
            self._prepared.clear()

    async def take_token(self) -> None:
        """Wait for a token, for prepared work that needs one after all."""
        await self._bucket.take()

    def _put(self, key: Key, rank: int) -> bool:
        """Put a key into the queue; False if it is there already, is running, or has a pending retry."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._timers and rank < self._waiting.get(key, math.inf):
            self._waiting[key] = rank
            self._ready.put_nowait((rank, next(self._numbers), key))
            return True
        return False

    def add_later(self, key: Key, seconds: float) -> None:
        """Request a pass after a while, after an event.

        This pass also covers all requests that arrive meanwhile. The requeue interval starts small again.
        """
        self._requeues.pop(key, None)
        self._prepared.pop(key, None)
        if key not in self._timers and key not in self._waiting:
            self._come_again_in(seconds, key)

    def waiting(self) -> int:
        """Number of keys that wait for a worker; keys that pause after a failure do not count."""
        return len(self._waiting)

    def idle(self) -> bool:
        """Whether no key waits, runs or has a pending retry; a requeue that a pass requested does not count."""
        return not (self._waiting or self._running or self._timers)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            await self._bucket.take()  # before the key, so that the most urgent key is taken then
            key = await self._next()
            work = self._take_prepared(key) or self._work
            self._running.add(key)
            try:
                pause = await self._try(key, work)
            finally:
                self._running.discard(key)
            again = key in self._again
            self._again.discard(key)
            if pause is not None:
                self._come_again_in(pause, key)
            elif again:
                self._put(key, _EVENT)

    async def _next(self) -> Key:
        while True:
            rank, _, key = await self._ready.get()
            if self._waiting.get(key) == rank:  # otherwise an event has moved it forward meanwhile
                del self._waiting[key]
                return key

    def _take_prepared(self, key: Key) -> Work | None:
        work = self._prepared.pop(key, None)
        if work is not None:
            self._bucket.put_back()
            self._prepared_taken.set()
        return work

    async def _try(self, key: Key, work: Work) -> float | None:
        """Run one pass; return the pause in seconds before the retry, None after success."""
        timer = self._requeue_timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        try:
            requeue_seconds = await work(key)
        except SdServiceError as error:
            # ClusterUnavailable; or the status could not be written, because the namespace is being deleted.
            pause = getattr(error, "retry_after_seconds", None) or self._pause(key)
            logger.warning("%s/%s: %s; next try in %.1f s", *key, error, pause)
            return pause
        except Exception:
            pause = self._pause(key)
            logger.exception("%s/%s: unexpected error; next try in %.1f s", *key, pause)
            return pause
        self._failures.pop(key, None)
        if requeue_seconds is None:
            self._requeues.pop(key, None)
        else:
            self._requeue_in(requeue_seconds, key)
        return None

    def _requeue_in(self, seconds: float, key: Key) -> None:
        longer = min(self._requeues.get(key, 0.0) * _REQUEUES_GROW, _LONGEST_REQUEUE_SECONDS)
        pause = self._requeues[key] = max(seconds, longer)
        self._requeue_timers[key] = asyncio.get_running_loop().call_later(pause, self._put, key, _ROUTINE)

    def _pause(self, key: Key) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        # Full jitter would let a pause be zero; half of it keeps a floor.
        longest: float = min(self._cap, self._base * 2.0 ** min(failures - 1, 20))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing

    def _come_again_in(self, seconds: float, key: Key) -> None:
        earlier = self._timers.get(key)
        if earlier is not None:
            earlier.cancel()  # an event does not shorten the pause after a failure
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._come_again, key)

    def _come_again(self, key: Key) -> None:
        self._timers.pop(key, None)
        self._put(key, _EVENT)
