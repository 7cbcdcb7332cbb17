# SPDX-License-Identifier: Apache-2.0
import asyncio
from contextlib import asynccontextmanager

import pytest

from sd_operator.controller.work_queue import WorkQueue
from sd_operator.errors import ClusterUnavailable
from sd_operator.naming import Key

A, B = Key("ns", "a"), Key("ns", "b")


@asynccontextmanager
async def running(work, workers=2):
    queue = WorkQueue(work, workers=workers, retry_base_seconds=0.01, retry_cap_seconds=0.05)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - any condition, not one event
            await asyncio.sleep(0.001)


async def test_many_events_are_one_piece_of_work():
    seen = []

    async def work(key):
        seen.append(key)

    async with running(work) as queue:
        for _ in range(100):
            queue.add(A)
        await until(queue.idle)
    assert seen == [A]


async def test_an_event_during_work_is_worked_on_afterwards_and_never_beside():
    gate, inside, most, seen = asyncio.Event(), 0, 0, []

    async def work(key):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        seen.append(key)
        await gate.wait()
        inside -= 1

    async with running(work) as queue:
        queue.add(A)
        await until(lambda: inside == 1)
        queue.add(A)
        queue.add(A)
        await asyncio.sleep(0)
        gate.set()
        await until(queue.idle)
    assert seen == [A, A]
    assert most == 1


async def test_an_unavailable_cluster_brings_the_key_back():
    tries = []

    async def work(key):
        tries.append(key)
        if len(tries) < 3:
            raise ClusterUnavailable("away")

    async with running(work) as queue:
        queue.add(A)
        await until(lambda: len(tries) == 3)
        await until(queue.idle)
    assert tries == [A] * 3


async def test_a_poisoned_key_leaves_the_others_alone_and_does_not_spin():
    tries = {A: 0, B: 0}

    async def work(key):
        tries[key] += 1
        if key == A:
            raise RuntimeError("poison")

    async with running(work, workers=1) as queue:
        queue.add(A)
        await until(lambda: tries[A] >= 1)
        for _ in range(1000):
            queue.add(A)  # events of a failing key do not shorten its pause
        queue.add(B)
        await until(lambda: tries[B] == 1)
        assert tries[A] < 10


async def test_a_burst_is_answered_once_after_it_has_settled():
    seen = []

    async def work(key):
        seen.append(key)

    async with running(work) as queue:
        for _ in range(50):
            queue.add_later(A, 0.05)
        assert not queue.idle()
        await until(queue.idle)
    assert seen == [A]


async def test_an_event_does_not_shorten_the_pause_after_a_failure():
    tries = []

    async def work(key):
        tries.append(key)
        queue.add_later(key, 0)  # the event of a write of its own
        raise ClusterUnavailable("away", retry_after_seconds=3600)

    async with running(work) as queue:
        queue.add(A)
        await until(lambda: tries)
        await asyncio.sleep(0.1)
    assert tries == [A]


async def test_work_that_asks_to_be_done_again_is():
    seen = []

    async def work(key):
        seen.append(key)
        return 0.01 if len(seen) < 3 else None

    async with running(work) as queue:
        queue.add(A)
        await until(lambda: len(seen) == 3)
        assert queue.idle()


async def test_an_event_does_not_wait_for_a_later_look_and_takes_its_place():
    seen = []

    async def work(key):
        seen.append(key)
        return 0.5 if len(seen) == 1 else None

    async with running(work) as queue:
        queue.add(A)
        await until(lambda: len(seen) == 1)
        assert queue.idle()
        queue.add(A)
        await until(lambda: len(seen) == 2)
        await asyncio.sleep(0.7)
    assert len(seen) == 2, "the later look was answered by the event"


@pytest.mark.parametrize(
    "happens",
    [WorkQueue.add, lambda queue, key: queue.add_later(key, 0.01)],
    ids=["of the resource", "of a child"],
)
async def test_pauses_between_looks_grow_until_there_is_an_event(monkeypatch, happens):
    """Here none lasts, but the twentieth, which the event ends."""
    loop, pauses = asyncio.get_running_loop(), []
    call_later = loop.call_later

    def at_once(seconds, call, *arguments, **context):
        if seconds < 30:  # those of the test itself
            return call_later(seconds, call, *arguments, **context)
        pauses.append(seconds)
        return call_later(0 if len(pauses) != 20 else 3600, call, *arguments, **context)

    async def work(_):
        return 30

    monkeypatch.setattr(loop, "call_later", at_once)
    async with running(work) as queue:
        queue.add(A)
        await until(lambda: len(pauses) == 20)
        happens(queue, A)
        await until(lambda: len(pauses) >= 23)
    assert pauses[:4] == [30, 37.5, 46.875, 58.59375]
    assert max(pauses) == pauses[19] == 300
    assert pauses[20:23] == [30, 37.5, 46.875]


async def test_what_has_happened_goes_before_what_is_looked_at_anyway():
    seen, may_go = [], asyncio.Event()

    async def work(key):
        seen.append(key)
        await may_go.wait()

    first, last, fresh = Key("ns", "first"), Key("ns", "last"), Key("ns", "fresh")
    async with running(work, workers=1) as queue:
        for key in (first, A, B, last):
            queue.add_routine(key)
        await until(lambda: seen == [first])
        queue.add(fresh)
        queue.add(last)
        assert queue.waiting() == 4
        may_go.set()
        await until(queue.idle)
    assert seen == [first, fresh, last, A, B], "each once"


async def test_concurrency_is_bounded():
    inside = most = 0

    async def work(_):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.001)
        inside -= 1

    async with running(work, workers=3) as queue:
        for number in range(20):
            queue.add(Key("ns", str(number)))
        await until(queue.idle)
    assert most == 3


async def test_what_comes_all_at_once_is_spread():
    """Two seconds' worth at once, the others at the rate; the clock of the test stands still, so nothing is saved anew."""
    seen = []

    async def work(key):
        seen.append(key)

    keys = [Key("ns", str(number)) for number in range(60)]
    queue = WorkQueue(
        work, workers=4, retry_base_seconds=0.01, retry_cap_seconds=0.05, per_second=20, clock=lambda: 100.0
    )
    task = asyncio.create_task(queue.run())
    try:
        for key in keys:
            queue.add(key)
        await until(lambda: len(seen) >= 40)
        assert queue.waiting() <= 20
        assert len(seen) < 60, "the rest has to wait for the rate"
        await until(lambda: len(seen) == 60)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert set(seen) == set(keys)


async def test_prepared_work_replaces_the_queues_own_and_takes_no_token():
    """The clock stands still, so that ten tokens at most are to be had."""
    seen, prepared = [], []

    async def work(key):
        seen.append(key)

    async def from_lists(key):
        prepared.append(key)

    queue = WorkQueue(
        work, workers=4, retry_base_seconds=0.01, retry_cap_seconds=0.05, per_second=5, clock=lambda: 100.0
    )
    task = asyncio.create_task(queue.run())
    keys = [Key("ns", str(number)) for number in range(100)]
    try:
        for key in keys:
            queue.add_prepared(key, from_lists)
        async with asyncio.timeout(2):
            await until(lambda: len(prepared) == 100)
        assert seen == []
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_was_read_before_an_event_is_not_used():
    seen, prepared, may_go = [], [], asyncio.Event()

    async def work(key):
        seen.append(key)
        await may_go.wait()

    async def from_lists(key):
        prepared.append(key)

    first, later, fresh = Key("ns", "first"), Key("ns", "later"), Key("ns", "fresh")
    async with running(work, workers=1) as queue:
        queue.add(first)
        await until(lambda: seen == [first])
        for key in (A, B, later):
            queue.add_prepared(key, from_lists)
        queue.add(fresh)
        queue.add_prepared(fresh, from_lists)
        queue.add(A)
        queue.add_later(later, 0.001)
        may_go.set()
        await until(queue.idle)
    assert prepared == [B]
    assert seen == [first, fresh, A, later]


async def test_prepared_work_that_nobody_does_in_time_is_done_by_reading_anew():
    seen, may_go = [], asyncio.Event()

    async def work(key):
        seen.append(key)
        await may_go.wait()

    async def from_lists(key):
        raise AssertionError(key)

    async with running(work, workers=1) as queue:
        queue.add(A)
        await until(lambda: seen == [A])
        queue.add_prepared(B, from_lists)
        async with asyncio.timeout(10):
            await queue.prepared_left(1, seconds=600)
            await queue.prepared_left(0, seconds=0.01)
        may_go.set()
        await until(queue.idle)
    assert seen == [A, B]


async def test_prepared_work_that_is_done_lets_the_next_batch_come():
    may_go = asyncio.Event()

    async def work(_):
        """Not needed."""

    async def from_lists(_):
        await may_go.wait()

    async with running(work, workers=1) as queue:
        for key in (A, B):
            queue.add_prepared(key, from_lists)
        waiting = asyncio.create_task(queue.prepared_left(0, seconds=600))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        may_go.set()
        await asyncio.wait_for(waiting, 10)
