# SPDX-License-Identifier: Apache-2.0
"""The keyed queue: many events become one piece of work, and one key is worked on by one worker at a time.

A key added while it is being worked on is worked on once more afterwards, so no event is lost. A key that fails
comes back after a pause of its own that doubles, so one poisoned resource does not slow the others. Work may ask to
be done again after a while; whatever comes first, that time or an event, does it. Of what is looked at again and again
without an event the pauses grow, so that a thousand resources that wait for the same thing do not fill the queue. What is
looked at without an event, such as every resource after a start, waits until no event does; a token bucket spreads it. Work that has
read beforehand what it needs takes no token: the bucket bounds what the API server is asked.
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
_LOOKS_GROW = 1.25  # each pause is then a fifth of the time waited so far
_LONGEST_LOOK_SECONDS = 300.0
_EVENT, _ROUTINE = 0, 1  # in this order


class TokenBucket:
    """So many at a rate, and at once what two seconds of quiet have saved."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._rate = per_second
        self._clock = clock
        self._full_at = float("-inf")

    async def take(self) -> None:
        """Wait for a token; who asks first gets the first."""
        # When the bucket will be full again tells how much is in it.
        self._full_at = max(self._full_at, self._clock()) + 1 / self._rate
        wait = self._full_at - self._clock() - _SAVED_SECONDS
        if wait > 0:
            await asyncio.sleep(wait)

    def put_back(self) -> None:
        """Return a token that was not used."""
        self._full_at -= 1 / self._rate


Work = Callable[[Key], Awaitable[float | None]]
"""Works on a key; returns the seconds after which to do it again although nothing happened, None for never."""


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
        self._visits: dict[Key, asyncio.TimerHandle] = {}
        self._looks: dict[Key, float] = {}  # the latest pause, where no event came since
        self._prepared: dict[Key, Work] = {}
        self._prepared_taken = asyncio.Event()

    def add(self, key: Key) -> None:
        """Ask for the key to be worked on soon, since something has happened; never blocks, never raises.

        A pause after a failure is kept: events of a failing key do not make it spin.
        """
        self._looks.pop(key, None)
        self._prepared.pop(key, None)
        self._put(key, _EVENT)

    def add_routine(self, key: Key) -> None:
        """Ask for the key to be worked on once no event waits."""
        self._put(key, _ROUTINE)

    def add_prepared(self, key: Key, work: Work) -> None:
        """Ask for the key to be worked on once no event waits, by work that has read beforehand what it needs.

        It takes no token. An event that comes first is newer than what was read: then the queue's own work is done.
        """
        if self._put(key, _ROUTINE):
            self._prepared[key] = work

    async def prepared_left(self, most: int, seconds: float) -> None:
        """Wait until at most so much prepared work is left; after so long, the queue's own work replaces what is left."""
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
        """Let a key wait for a worker; False where it does already, or where something else brings it back."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._timers and rank < self._waiting.get(key, math.inf):
            self._waiting[key] = rank
            self._ready.put_nowait((rank, next(self._numbers), key))
            return True
        return False

    def add_later(self, key: Key, seconds: float) -> None:
        """Ask for the key to be worked on after a while, since something has happened.

        Whatever else asks meanwhile is answered by that. Pauses between passes that grew without an event start small again.
        """
        self._looks.pop(key, None)
        self._prepared.pop(key, None)
        if key not in self._timers and key not in self._waiting:
            self._come_again_in(seconds, key)

    def waiting(self) -> int:
        """How many keys wait to be worked on; those that pause after a failure do not count."""
        return len(self._waiting)

    def idle(self) -> bool:
        """Nothing waits, runs or is to be tried again; a later look that work asked for does not count."""
        return not (self._waiting or self._running or self._timers)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            await self._bucket.take()  # before there is a key: the most urgent one is taken then
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
            if self._waiting.get(key) == rank:  # else it has been taken for an event meanwhile
                del self._waiting[key]
                return key

    def _take_prepared(self, key: Key) -> Work | None:
        work = self._prepared.pop(key, None)
        if work is not None:
            self._bucket.put_back()
            self._prepared_taken.set()
        return work

    async def _try(self, key: Key, work: Work) -> float | None:
        """Work once; return the pause in seconds before the next try, None after success."""
        visit = self._visits.pop(key, None)
        if visit is not None:
            visit.cancel()
        try:
            look_again = await work(key)
        except SdServiceError as error:
            # ClusterUnavailable; or not even the status could be written, since the namespace is on its way out.
            pause = getattr(error, "retry_after_seconds", None) or self._pause(key)
            logger.warning("%s/%s: %s; again in %.1f s", *key, error, pause)
            return pause
        except Exception:
            pause = self._pause(key)
            logger.exception("%s/%s: unexpected error; again in %.1f s", *key, pause)
            return pause
        self._failures.pop(key, None)
        if look_again is None:
            self._looks.pop(key, None)
        else:
            self._look_in(look_again, key)
        return None

    def _look_in(self, seconds: float, key: Key) -> None:
        longer = min(self._looks.get(key, 0.0) * _LOOKS_GROW, _LONGEST_LOOK_SECONDS)
        pause = self._looks[key] = max(seconds, longer)
        self._visits[key] = asyncio.get_running_loop().call_later(pause, self._put, key, _ROUTINE)

    def _pause(self, key: Key) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        # Full jitter would let a pause be zero; half of it keeps a floor.
        longest: float = min(self._cap, self._base * 2.0 ** min(failures - 1, 20))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing

    def _come_again_in(self, seconds: float, key: Key) -> None:
        earlier = self._timers.get(key)
        if earlier is not None:
            earlier.cancel()  # an event meanwhile does not shorten the pause after a failure
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._come_again, key)

    def _come_again(self, key: Key) -> None:
        self._timers.pop(key, None)
        self._put(key, _EVENT)
