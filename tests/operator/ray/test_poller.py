# SPDX-License-Identifier: Apache-2.0
"""Slow targets do not delay fast ones. The seconds are the operator's own, in virtual time."""

import asyncio
from collections import Counter, defaultdict
from contextlib import asynccontextmanager

import pytest

from sd_operator.errors import RayTooSlow, RayUnavailable
from sd_operator.ray.poller import Poller, Speed, Timing

SILENT = 200
TAKES = {"silent": 3600.0, "slow": 2.0, "quick": 0.01}
PACE = Timing()


class World:
    """Targets by name: `silent-1` never answers, `slow-1` takes two seconds, `quick-1` ten milliseconds."""

    def __init__(self, every=30.0):
        self.answered, self.failed, self.started = defaultdict(list), defaultdict(list), defaultdict(list)
        self.now, self.most = Counter(), Counter()
        self.errors = {}
        self.outcomes = Counter()
        self.poller = Poller(self.poll, self.fail, every=every, counted=self.count, clock=self.time)

    @staticmethod
    def time():
        return asyncio.get_running_loop().time()

    async def poll(self, name, seconds):
        kind = name.partition("-")[0]
        self.started[name].append(self.time())
        self.now[kind] += 1
        self.most[kind] = max(self.most[kind], self.now[kind])
        try:
            async with asyncio.timeout(seconds):
                await asyncio.sleep(TAKES[kind])
        except TimeoutError:
            raise RayTooSlow("no answer") from None
        finally:
            self.now[kind] -= 1
        if name in self.errors:
            raise self.errors[name]
        self.answered[name].append(self.time())

    def fail(self, name, words):
        self.failed[name].append(words)

    def watch_silent_ones(self, first=0):
        for number in range(first, first + SILENT):
            self.poller.watch(f"silent-{number}", settles=True)

    def count(self, outcome):
        self.outcomes[outcome] += 1

    async def asked(self, name):
        """Seconds from a call for a poll to its answer."""
        before, at = len(self.answered[name]), self.time()
        self.poller.ask(name)
        while len(self.answered[name]) == before:  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.01)
        return self.time() - at

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.poller.run())
        try:
            yield self
        finally:
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def play(in_virtual_time):
    """Run a scene in a world, and give that back."""

    def run(scene, **more):
        async def main():
            world = World(**more)
            async with world.running():
                await scene(world)
            return world

        return in_virtual_time(main())

    return run


def test_two_hundred_silent_targets_delay_no_quick_one(play):
    async def scene(world):
        world.poller.watch("quick-1", settles=False)
        await asyncio.sleep(1)
        world.watch_silent_ones()
        for _ in range(100):
            await asyncio.sleep(1)
            assert await world.asked("quick-1") < PACE.least + 0.05

    world = play(scene)
    assert world.most["silent"] == Speed.NEW.slots + Speed.SLOW.slots, "no more at a time"
    assert all(len(world.failed[f"silent-{number}"]) >= 1 for number in range(SILENT))
    assert world.outcomes["answered"] == len(world.answered["quick-1"])
    assert world.outcomes["late"] >= 2 * SILENT, "after a second, and after five"


def test_a_quick_target_that_is_new_waits_a_second_for_each_round_of_new_ones(play):
    async def scene(world):
        world.watch_silent_ones()
        world.poller.watch("quick-1", settles=False)
        await asyncio.sleep(SILENT / Speed.NEW.slots * PACE.quick + 1)

    assert play(scene).answered["quick-1"]


def test_a_slow_target_that_answers_goes_before_those_that_do_not(play):
    async def scene(world):
        world.poller.watch("slow-1", settles=False)
        await asyncio.sleep(5)
        assert world.answered["slow-1"], "cut off after a second, it is given more time"
        world.watch_silent_ones()
        for _ in range(10):
            await asyncio.sleep(10)
            assert await world.asked("slow-1") < PACE.slow + 2.1, "one slot, and its own time"

    assert not play(scene).failed["slow-1"]


def test_a_silent_target_is_polled_ever_more_rarely(play):
    async def scene(world):
        world.poller.watch("silent-1", settles=True)
        await asyncio.sleep(3600)

    starts = play(scene).started["silent-1"]
    assert starts[1] - starts[0] == PACE.quick
    assert PACE.slow + PACE.missed / 2 <= starts[2] - starts[1] <= PACE.slow + PACE.missed
    assert 3600 / (PACE.slow + PACE.longest) < len(starts) < 3600 / (PACE.longest / 2)


def test_silent_targets_are_not_polled_all_at_once_again(play):
    async def scene(world):
        world.watch_silent_ones()
        await asyncio.sleep(600)

    world = play(scene)
    later = Counter(int(at) for starts in world.started.values() for at in starts[4:])
    assert max(later.values()) < SILENT / 4


def test_where_something_happens_polls_come_often_at_first(play):
    async def scene(world):
        world.poller.watch("quick-1", settles=True)
        world.poller.watch("quick-2", settles=False)
        await asyncio.sleep(33)
        world.poller.ask("quick-2")
        await asyncio.sleep(33)

    world = play(scene)
    settling = [0, 1, 3, 7, 15, 31]  # each pause is the double of the one before, or a little less
    assert all(at <= wanted + 0.1 for at, wanted in zip(world.started["quick-1"], settling, strict=False))
    assert sum(at < 33 for at in world.started["quick-2"]) == 2
    assert sum(at >= 33 for at in world.started["quick-2"]) >= 5


def test_an_answer_is_asked_for_every_thirty_seconds(play):
    async def scene(world):
        world.poller.watch("quick-1", settles=False)
        await asyncio.sleep(3600)

    assert 3600 / 30 <= len(play(scene).answered["quick-1"]) <= 3600 / 24 + 1


def test_a_target_that_refuses_is_quick_and_asked_again_after_ten_seconds(play):
    async def scene(world):
        world.errors["quick-1"] = RayUnavailable("no")
        world.poller.watch("quick-1", settles=False)
        world.watch_silent_ones()
        await asyncio.sleep(60)
        assert 6 <= len(world.started["quick-1"]) <= 9
        world.errors.clear()
        assert await world.asked("quick-1") < 0.5

    play(scene)


def test_it_is_polled_once_more_where_something_happens_during_a_poll(play):
    async def scene(world):
        world.poller.watch("slow-1", settles=False)
        await asyncio.sleep(2)
        world.poller.ask("slow-1")
        await asyncio.sleep(4)

    assert len(play(scene).answered["slow-1"]) == 2


def test_many_calls_are_one_poll_each_half_second(play):
    async def scene(world):
        world.poller.watch("quick-1", settles=False)
        for _ in range(1000):
            await asyncio.sleep(0.01)
            world.poller.ask("quick-1")

    assert len(play(scene).started["quick-1"]) <= 10 / PACE.least + 1


def test_who_is_forgotten_is_polled_no_more(play):
    async def scene(world):
        for kind in ("quick", "slow", "silent"):
            world.poller.watch(f"{kind}-1", settles=False)
        await asyncio.sleep(0.5)
        for kind in ("quick", "slow", "silent"):
            world.poller.forget(f"{kind}-1")
        await asyncio.sleep(100)

    assert all(len(starts) == 1 for starts in play(scene).started.values())


@pytest.mark.parametrize("error", [RecursionError("deep"), MemoryError(), KeyError("a")], ids=repr)
def test_no_error_ends_the_polls_of_others(play, error, caplog):
    async def scene(world):
        world.errors["quick-bad"] = error
        world.poller.watch("quick-bad", settles=False)
        world.poller.watch("quick-good", settles=False)
        await asyncio.sleep(100)

    world = play(scene)
    assert len(world.answered["quick-good"]) >= 4
    assert len(world.failed["quick-bad"]) >= 10
    assert set(world.failed["quick-bad"]) == {f"Ray's answer cannot be read ({type(error).__name__})"}
    assert caplog.text.count("logged once") == 1
    assert "Traceback" in caplog.text
