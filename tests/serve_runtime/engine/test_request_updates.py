# SPDX-License-Identifier: Apache-2.0
"""The progress reports of a request. The test controls the clock."""

import asyncio

import pytest

from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.interface import ImageRequest, Progress
from sd_runtime.engine.request_updates import RequestUpdates

STEPS = 40


class Watched(RequestUpdates):
    """A stream of one picture that keeps all it tells, and whose clock stands until it is moved."""

    def __init__(self, steps=STEPS):
        self.now, self.told = 0.0, []
        task = ImageTask(ImageRequest("a", steps=steps), steps=steps)
        super().__init__([task], asyncio.get_running_loop(), lambda: self.now)

    def put(self, update):
        self.told.append(update)

    def step(self, seconds):
        self.now += seconds
        self.tasks[0].step += 1
        self.advanced()


async def test_fast_steps_are_told_ten_times_a_second():
    stream = Watched()
    for _ in range(STEPS):
        stream.step(seconds=1 / 32)
    assert [each.step for each in stream.told] == [*range(1, STEPS, 4), STEPS]


async def test_slow_steps_are_all_told():
    stream = Watched()
    for _ in range(STEPS):
        stream.step(seconds=0.11)
    assert [each.step for each in stream.told] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("steps", [1, 2])
async def test_the_first_step_and_the_last_one_are_told_however_fast(steps):
    stream = Watched(steps)
    stream.waits(0)
    for _ in range(steps):
        stream.step(seconds=0)
    assert [each.step for each in stream.told] == list(range(steps + 1))


async def test_a_queue_that_moves_fast_is_told_ten_times_a_second():
    stream = Watched()
    for ahead in range(20, 0, -1):
        stream.now += 1 / 32
        stream.waits(ahead)
    assert [each.ahead for each in stream.told] == [20, 16, 12, 8, 4]


async def test_a_place_that_stays_is_told_once():
    stream = Watched()
    for _ in range(5):
        stream.now += 1
        stream.waits(3)
    assert stream.told == [Progress(ahead=3, step=0, steps=STEPS)]
