# SPDX-License-Identifier: Apache-2.0
"""One request serves all callers that need it at the same time."""

import asyncio

import pytest

from sd_operator.recent import Recent


class Source:
    """Counts how often it is read; a reading ends when it is let go."""

    def __init__(self):
        self.read, self.go = 0, asyncio.Event()
        self.go.set()

    async def __call__(self):
        self.read += 1
        number = self.read
        await self.go.wait()
        return number


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def recent(now):
    def clock():
        now[0] += 0.001
        return now[0]

    return Recent(10.0, clock, most=3)


async def test_who_asks_at_the_same_time_shares_the_answer(recent):
    source = Source()
    source.go.clear()
    asking = [asyncio.create_task(recent.get("a", source)) for _ in range(20)]
    await asyncio.sleep(0)
    source.go.set()
    assert await asyncio.gather(*asking) == [1] * 20


async def test_an_answer_is_good_for_a_while(recent, now):
    source = Source()
    assert [await recent.get("a", source), await recent.get("a", source)] == [1, 1]
    now[0] += 10
    assert await recent.get("a", source) == 2


async def test_whoever_wants_it_anew_gets_what_was_read_after_he_asked(recent):
    source = Source()
    await recent.get("a", source)
    source.go.clear()
    asking = [asyncio.create_task(recent.get("a", source, fresh=True)) for _ in range(20)]
    await asyncio.sleep(0)
    source.go.set()
    found = await asyncio.gather(*asking)
    # The first of them reads before the others have asked; those share the next reading.
    assert (sorted(found), source.read) == ([2, *[3] * 19], 3)


async def test_a_change_during_a_reading_makes_it_old(recent):
    source = Source()
    source.go.clear()
    first = asyncio.create_task(recent.get("a", source))
    await asyncio.sleep(0)
    recent.changed("a")
    source.go.set()
    assert await first == 1
    assert await recent.get("a", source) == 2
    assert await recent.get("a", source) == 2


async def test_a_reading_that_fails_is_nobodys_answer(recent):
    async def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await recent.get("a", fails)
    assert await recent.get("a", Source()) == 1


async def test_the_oldest_are_forgotten(recent):
    source = Source()
    for key in "abcd":
        await recent.get(key, source)
    assert [await recent.get("d", source), await recent.get("a", source)] == [4, 5]
