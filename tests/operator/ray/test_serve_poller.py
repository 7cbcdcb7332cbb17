# SPDX-License-Identifier: Apache-2.0
"""The dashboard state that a pass receives, and the time of change reports.

The clock is a parameter, and polls run in order.
"""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from sd_operator.errors import RayUnavailable
from sd_operator.naming import Key
from sd_operator.ray.serve_poller import ServePoller
from sd_operator.ray.serve_reader import Asks, DashboardTarget, ServeReader
from sd_operator.ray.serve_state import Silence

KEY = Key("team", "imagine")
PLACE = DashboardTarget("team", "imagine-abcde", "head-1", "token")
RUNNING = {"applications": {"imagine": {"status": "RUNNING"}}}
UNHEALTHY = {"applications": {"imagine": {"status": "UNHEALTHY"}}}
START = datetime(2026, 1, 2, tzinfo=UTC)


class Ray:
    """A head that answers as told, a clock, and who was told of changes."""

    def __init__(self):
        self.answer = RUNNING
        self.asked = 0
        self.now = START
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.poller = ServePoller(ServeReader(Asks(self.ask, self.ask), lambda: self.now))
        self.changed, self.started = [], []
        self._around = 0

    async def ask(self, place, seconds):
        self.asked += 1
        await self.may_answer.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def see(self, place=PLACE, *, happened=False):
        """One pass; something may have happened that has it poll at once."""
        self._around += happened
        seen = self.poller.seen(KEY, [place], self._around)
        return seen.readings.get(place.cluster) or seen.silences[place.cluster]

    async def polled(self, times=1):
        """Wait until so many more polls have ended."""
        wanted = self.asked + times
        async with asyncio.timeout(20):
            while self.asked < wanted:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)

    def later(self, seconds):
        self.now += timedelta(seconds=seconds)

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.poller.run(self.changed.append, self.started.append))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def ray():
    found = Ray()
    async with found.running():
        yield found


async def test_a_pass_does_not_wait_and_is_told_of_the_answer(ray):
    assert ray.see() == Silence(START, "", from_start=True)
    await ray.polled()
    assert (ray.started, ray.changed) == ([KEY], [])
    found = ray.see()
    assert (found.state.status, found.at, found.fresh) == ("RUNNING", START, True)


async def test_only_the_first_answers_since_the_start_wait_for_events(ray):
    ray.poller.seen(KEY, [], 0)
    assert ray.see() == Silence(START, "", from_start=False)
    await ray.polled()
    assert (ray.started, ray.changed) == ([], [KEY])


async def test_what_happens_around_ray_has_it_polled_at_once_and_a_change_is_told(ray):
    ray.see()
    await ray.polled()
    ray.see()
    ray.answer = UNHEALTHY
    assert ray.see(happened=True).due
    await ray.polled()
    assert ray.changed == [KEY]
    found = ray.see()
    assert (found.state.status, found.due) == ("UNHEALTHY", False)


async def test_what_stays_the_same_is_told_to_nobody(ray):
    ray.see()
    await ray.polled()
    ray.see(happened=True)
    await ray.polled()
    assert (ray.started, ray.changed) == ([KEY], [])


async def test_a_pass_without_an_event_polls_nothing(ray):
    ray.see()
    await ray.polled()
    for _ in range(5):
        ray.see()
    await asyncio.sleep(0.6)
    assert ray.asked == 1


async def test_silence_is_bridged_for_two_minutes_by_what_was_told_last(ray):
    ray.see()
    await ray.polled()
    ray.answer = RayUnavailable("Ray answers 302")
    ray.see(happened=True)
    await ray.polled()
    assert ray.changed == [KEY], "its knowledge is old from now on, which a status tells"
    ray.later(110)
    found = ray.see()
    assert (found.state.status, found.at, found.fresh, found.failure) == (
        "RUNNING",
        START,
        False,
        "Ray answers 302",
    )
    ray.later(20)
    assert ray.see() == Silence(START, "Ray answers 302", from_start=False)


async def test_a_pass_is_asked_for_when_what_is_remembered_is_too_old(ray):
    ray.see()
    await ray.polled()
    ray.now += timedelta(seconds=119.5)
    ray.answer = RayUnavailable("no answer")
    ray.see(happened=True)
    await ray.polled()
    ray.later(1)
    async with asyncio.timeout(5):
        while ray.changed != [KEY, KEY]:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def test_what_a_former_head_told_is_forgotten(ray):
    ray.see()
    await ray.polled()
    ray.answer = RayUnavailable("no answer")
    assert ray.see(DashboardTarget("team", "imagine-abcde", "head-2", "token")) == Silence(START)


async def test_a_token_that_is_known_later_is_used_at_once(ray):
    ray.see(DashboardTarget("team", "imagine-abcde", "head-1", ""))
    await ray.polled()
    assert ray.see().fresh, "it is the same head"
    await ray.polled()
    assert ray.asked == 2


async def test_an_answer_that_does_not_come_is_awaited_for_ten_seconds(ray):
    ray.may_answer.clear()
    ray.see()
    await ray.polled()
    ray.later(9)
    assert ray.see().failure == ""
    ray.later(2)
    assert ray.see().failure == "the first poll has not started yet"


async def test_a_head_that_becomes_ready_may_answer_now(ray):
    """And until it has, what KubeRay tells of the former head decides nothing."""
    ray.poller.seen(KEY, [], 0)
    ray.answer = RayUnavailable("connection refused")
    ray.see(DashboardTarget("team", "imagine-abcde", "head-1", "token", ready=False))
    await ray.polled()
    assert ray.see(DashboardTarget("team", "imagine-abcde", "head-1", "token", ready=False)).failure
    ray.may_answer.clear()
    assert ray.see().failure == ""


async def test_a_head_that_never_answered_since_the_start_is_so_for_two_minutes(ray):
    ray.answer = RayUnavailable("Ray answers 503")
    ray.see()
    await ray.polled()
    assert (ray.see(), ray.changed) == (Silence(START, "Ray answers 503", from_start=True), [KEY])
    ray.later(121)
    assert ray.see() == Silence(START, "Ray answers 503", from_start=False)


async def test_an_error_that_nobody_foresaw_counts_as_no_answer_and_is_logged_once(ray, caplog):
    ray.answer = ZeroDivisionError("oops")
    ray.see()
    await ray.polled(2)
    assert ray.see().failure == "Ray's answer cannot be read (ZeroDivisionError)"
    assert caplog.text.count("Traceback") == 1
    ray.answer = RUNNING
    ray.see(happened=True)
    await ray.polled()
    assert ray.see().fresh


async def test_who_is_gone_is_polled_no_more(ray):
    ray.see()
    await ray.polled()
    ray.poller.forget(KEY)
    ray.changed.clear()
    assert ray.see() == Silence(START, "", from_start=True)
    ray.poller.seen(KEY, [], 7)
    await asyncio.sleep(0.1)
    assert ray.changed == []


async def test_asking_waits_for_the_answer_or_its_failure(ray):
    seen = await ray.poller.ask(KEY, [PLACE])
    assert seen.readings["imagine-abcde"].fresh
    ray.answer = RayUnavailable("Ray answers 302")
    seen = await ray.poller.ask(KEY, [PLACE])
    assert seen.silences["imagine-abcde"] == Silence(START, "Ray answers 302", from_start=False)
