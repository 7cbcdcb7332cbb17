# SPDX-License-Identifier: Apache-2.0
"""Polls targets that may be slow, outside of every pass: a few at a time, each one periodically.

No target delays another. A new target has one second, in slots for new targets. A target whose last poll ended within a
second has one second too, in slots for quick targets. A slower target continues in slots for slow targets, with five
seconds. There, targets that answer go before those that do not. A target that drops packets is polled more and more rarely.
"""

import asyncio
import itertools
import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from sd_operator.errors import RayTooSlow, SdServiceError

T = TypeVar("T", bound=Hashable)

logger = logging.getLogger(__name__)

_MOST_CAUSES = 100


class Speed(Enum):
    """The speed class of a target, which has its own queue and slots."""

    NEW = "new"
    QUICK = "quick"
    SLOW = "slow"

    @property
    def slots(self) -> int:
        """Maximum of polls at a time."""
        return 16 if self is Speed.QUICK else 32


@dataclass(frozen=True)
class Timing:
    """The deadlines of polls and the pauses between them, in seconds.

    Attributes:
        quick: deadline of a first poll or of a poll of a quick target.
        slow: deadline of a poll of a slow target.
        least: minimum between the starts of two polls of a target.
        settling: pause after a poll of a target that has changed; it doubles from poll to poll.
        refused: maximum pause after a refusal.
        missed: approximate pause after a poll that ran into its deadline; it doubles up to `longest`.
        longest: maximum pause.
    """

    quick: float = 1.0
    slow: float = 5.0
    least: float = 0.5
    settling: float = 1.0
    refused: float = 10.0
    missed: float = 10.0
    longest: float = 60.0

    def of(self, speed: Speed) -> float:
        """The deadline of a poll."""
        return self.slow if speed is Speed.SLOW else self.quick


_TIMING = Timing()


@dataclass(eq=False)
class _Target:
    """The poll state of one target.

    Attributes:
        pause: seconds after the next poll; it grows to the regular pause.
        misses: number of consecutive polls that ran into their deadline.
        answers: whether the latest poll was answered.
        started: start of the latest poll, monotonic seconds.
        again: whether another poll was requested during a running one.
    """

    speed: Speed
    pause: float
    misses: int = 0
    answers: bool = False
    started: float = float("-inf")
    waits: bool = False
    runs: bool = False
    again: bool = False
    timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(order=True)
class _Turn(Generic[T]):
    rank: int
    number: int
    target: T = field(compare=False)
    state: _Target = field(compare=False)


class Poller(Generic[T]):
    """Polls targets until cancelled.

    Args:
        poll: polls a target within a number of seconds and stores the answer itself. It raises RayTooSlow at the deadline, and
            another SdServiceError if there is no answer.
        failed: called for each poll without an answer, with the reason in one line.
        every: seconds between two polls of a target that answers.
        counted: called at the end of each poll with `answered`, `refused`, or `late` for one that ran into its deadline.
        timing: the deadlines and pauses.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        poll: Callable[[T, float], Awaitable[None]],
        failed: Callable[[T, str], None],
        *,
        every: float,
        counted: Callable[[str], None] = lambda _: None,
        timing: Timing = _TIMING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._poll = poll
        self._failed = failed
        self._every = every
        self._counted = counted
        self._timing = timing
        self._clock = clock
        self._targets: dict[T, _Target] = {}
        self._queues: dict[Speed, asyncio.PriorityQueue[_Turn[T]]] = {
            speed: asyncio.PriorityQueue() for speed in Speed
        }
        self._numbers = itertools.count()
        self._causes: set[tuple[str, str]] = set()

    def watch(self, target: T, *, settles: bool) -> None:
        """Poll a target at once, and periodically from then on.

        Args:
            target: the target.
            settles: whether the target changes a lot at first, so that it is polled often.
        """
        state = self._targets[target] = _Target(Speed.NEW, self._timing.settling if settles else self._every)
        self._put(target, state)

    def ask(self, target: T) -> None:
        """Poll a watched target at once, because it may have changed, and often for a while."""
        state = self._targets[target]
        state.pause = self._timing.settling
        if state.runs:
            state.again = True
        elif not state.waits:
            self._put_in(state.started + self._timing.least - self._clock(), target, state)

    def forget(self, target: T) -> None:
        """Stop polling a target."""
        state = self._targets.pop(target, None)
        if state is not None:
            state.stop_timer()

    async def now(self, target: T) -> None:
        """Poll a target once with the slow deadline, whether it is watched or not, and wait for the end."""
        try:
            await self._poll(target, self._timing.slow)
        except Exception as error:  # noqa: BLE001 - as below
            self._failed(target, self._words(target, error))

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as group:
            for speed in Speed:
                for _ in range(speed.slots):
                    group.create_task(self._work(speed))

    async def _work(self, speed: Speed) -> None:
        while True:
            turn = await self._queues[speed].get()
            if self._targets.get(turn.target) is turn.state:  # otherwise it was forgotten meanwhile
                await self._take(turn.target, turn.state, speed)

    async def _take(self, target: T, state: _Target, speed: Speed) -> None:
        state.waits, state.runs, state.again = False, True, False
        state.started = self._clock()
        try:
            await self._poll(target, self._timing.of(speed))
        except RayTooSlow as error:
            self._counted("late")
            if speed is not Speed.SLOW:
                state.runs, state.speed = False, Speed.SLOW
                self._put(target, state)
                return
            state.misses, state.answers = state.misses + 1, False
            self._failed(target, str(error))
        except Exception as error:  # noqa: BLE001 - an error of one target must not affect the others
            self._counted("refused")
            state.misses, state.answers = 0, False
            self._failed(target, self._words(target, error))
        else:
            self._counted("answered")
            state.misses, state.answers = 0, True
        state.runs = False
        took = self._clock() - state.started
        state.speed = Speed.QUICK if took < self._timing.quick else Speed.SLOW
        if self._targets.get(target) is state:
            self._put_in(self._pause_after(state, took), target, state)

    def _pause_after(self, state: _Target, took: float) -> float:
        """Seconds until the next poll, with jitter."""
        if state.again:
            return self._timing.least - took
        if state.misses:
            longest = min(self._timing.longest, self._timing.missed * 2.0 ** min(state.misses - 1, 10))
            return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        pause = min(state.pause, self._every if state.answers else self._timing.refused)
        state.pause = min(2 * state.pause, self._every)
        return pause * random.uniform(0.8, 1.0)  # noqa: S311 - likewise

    def _put_in(self, seconds: float, target: T, state: _Target) -> None:
        state.stop_timer()
        if seconds <= 0:
            self._put(target, state)
        else:
            state.timer = asyncio.get_running_loop().call_later(seconds, self._put, target, state)

    def _put(self, target: T, state: _Target) -> None:
        state.stop_timer()
        state.waits = True
        rank = int(state.speed is Speed.SLOW and not state.answers)
        self._queues[state.speed].put_nowait(_Turn(rank, next(self._numbers), target, state))

    def _words(self, target: T, error: Exception) -> str:
        """Why there was no answer, in one line; an unexpected error is logged once for each line that raises it."""
        if isinstance(error, SdServiceError):
            return str(error)
        last = traceback.extract_tb(error.__traceback__)[-1]
        cause = (type(error).__name__, f"{last.filename}:{last.lineno}")
        if cause not in self._causes and len(self._causes) < _MOST_CAUSES:
            self._causes.add(cause)
            logger.error("a poll of %s failed unexpectedly; this is logged once", target, exc_info=error)
        return f"Ray's answer cannot be read ({type(error).__name__})"
