# SPDX-License-Identifier: Apache-2.0
"""The store of jobs, with a test clock and an engine that waits for the test."""

import asyncio
from dataclasses import replace

import pytest

from sd_runtime.engine.interface import ImageRequest, Picture, Progress
from sd_runtime.errors import InvalidRequest
from sd_runtime.store.jobs import Job, JobStore, TooManyJobs

REQUEST = ImageRequest(prompt="a", count=2)


@pytest.fixture
def gate():
    return asyncio.Event()


@pytest.fixture
async def remember(clock, gate):
    """A store whose engine draws one picture of 100 bytes once the gate is open."""

    async def draw(request):
        yield Progress(ahead=3, step=0, steps=8)
        await gate.wait()
        yield Picture(0, b"x" * 100, request.seed)

    stores = []

    def build(**bounds):
        stores.append(JobStore(draw, clock, **bounds))
        return stores[-1]

    yield build
    for store in stores:
        await store.close()


async def finish(store, gate):
    gate.set()
    await asyncio.gather(*store._tasks.values())


async def test_a_job_waits_until_its_first_step(remember, clock):
    job = await remember().start(REQUEST)
    assert (job.state, job.ahead) == ("queued", 3)
    assert job.eta_seconds(clock(), None) is None
    assert job.eta_seconds(clock(), 0.5) == 10.0


def test_a_running_job_goes_by_its_own_steps():
    job = Job("id", REQUEST, created=0.0)
    job.take(Progress(ahead=0, step=0, steps=8), now=10.0)
    assert job.state == "running"
    job.take(Progress(ahead=0, step=2, steps=8), now=14.0)
    assert job.eta_seconds(14.0, pictures_per_second=100.0) == 12.0
    job.end("succeeded", 20.0)
    assert job.eta_seconds(21.0, None) == 0


async def test_a_finished_job_is_forgotten_in_time(remember, clock, gate):
    store = remember(kept_seconds=10)
    job = await store.start(REQUEST)
    clock.now = 100.0
    assert store.expires_in(job) is None
    await finish(store, gate)
    clock.now = 109.0
    assert store.find(job.id) is job
    clock.now = 110.0
    assert store.find(job.id) is None


async def test_the_oldest_results_make_room(remember, clock, gate):
    store = remember(max_bytes=250)
    gate.set()
    jobs = []
    for clock.now in range(3):
        jobs.append(await store.start(REQUEST))
        await finish(store, gate)
    assert [store.find(job.id) is not None for job in jobs] == [False, True, True]


async def test_results_larger_than_all_room_stay_until_the_next(remember, gate):
    store = remember(max_bytes=50)
    gate.set()
    first = await store.start(REQUEST)
    await finish(store, gate)
    assert store.find(first.id) is first
    second = await store.start(REQUEST)
    await finish(store, gate)
    assert (store.find(first.id), store.find(second.id)) == (None, second)


async def test_a_job_that_fails_while_it_is_forgotten_says_why(clock):
    """Another job takes the last place in the moment in which this one is refused."""

    async def refuse(request):
        if request.seed:
            raise InvalidRequest("width: got 72: not for this model", "size")
        yield Progress(ahead=0, step=0, steps=8)
        await asyncio.Event().wait()

    store = JobStore(refuse, clock, max_jobs=1)
    refused = asyncio.create_task(store.start(replace(REQUEST, seed=1)))
    while not any(job.finished for job in store._jobs.values()):  # noqa: ASYNC110 - one turn of the loop each
        await asyncio.sleep(0)
    other = await store.start(REQUEST)
    with pytest.raises(InvalidRequest, match="got 72"):
        await refused
    assert store.find(other.id) is other
    await store.close()


async def test_unfinished_jobs_are_bounded(remember, clock, gate):
    store = remember(max_jobs=2)
    first = [await store.start(REQUEST) for _ in range(2)]
    with pytest.raises(TooManyJobs):
        await store.start(REQUEST)
    await finish(store, gate)
    await store.start(REQUEST)
    assert sum(store.find(job.id) is not None for job in first) == 1


async def test_a_client_that_leaves_before_the_id_leaves_no_job(clock):
    async def silent(request):
        await asyncio.sleep(60)
        yield Progress(0, 0, 1)

    store = JobStore(silent, clock)
    asking = asyncio.create_task(store.start(REQUEST))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.wait([asking])
    await asyncio.sleep(0.01)
    assert store._tasks == {}


async def test_an_engine_that_says_nothing_keeps_nobody_waiting(clock):
    async def silent(request):
        await asyncio.sleep(60)
        yield Progress(0, 0, 1)

    store = JobStore(silent, clock)
    async with asyncio.timeout(2):
        job = await store.start(REQUEST)
    assert job.state == "queued"
    await store.close()
    assert job.state == "cancelled"
