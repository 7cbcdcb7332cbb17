# SPDX-License-Identifier: Apache-2.0
"""The Lease against an API server in memory that checks versions as the real one does."""

import asyncio
import copy
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from sd_operator.controller import leader_election
from sd_operator.controller.leader_election import DURATION_SECONDS, Lease
from sd_operator.errors import ClusterUnavailable, LeadershipLost

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


class Server:
    """One Lease; `away` makes every request fail, `reads` and `writes` count those that came through."""

    def __init__(self):
        self.live = None
        self.version = 0
        self.away = False
        self.reads = self.writes = 0

    def _answer(self):
        if self.away:
            raise ClusterUnavailable("no answer from the API server")

    def _store(self, body):
        self.version += 1
        self.writes += 1
        self.live = copy.deepcopy(body)
        self.live["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.live)

    async def get(self, kind, namespace, name):
        self._answer()
        self.reads += 1
        assert (kind.plural, namespace, name) == ("leases", "system", leader_election.NAME)
        return copy.deepcopy(self.live)

    async def create(self, body, manager):
        self._answer()
        return None if self.live else self._store(body)

    async def replace(self, body, manager):
        self._answer()
        same = self.live and self.live["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
        return self._store(body) if same else None

    def edited(self, **spec):
        """Somebody else changes it."""
        self._store({**self.live, "spec": {**self.live["spec"], **spec}})


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(leader_election, "_RENEW_SECONDS", 0.001)
    monkeypatch.setattr(leader_election, "_RETRY_SECONDS", 0.001)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def candidate(server, clock):
    return lambda name: Lease(server, "system", name, clock=clock, now=lambda: NOW)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - any condition, not one event
            await asyncio.sleep(0.001)


@asynccontextmanager
async def doing(work):
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_absent_lease_is_made_and_held(candidate, server):
    ours = candidate("a")
    assert not ours.held()
    await ours.acquire()
    assert ours.held()
    assert server.live["spec"] == {
        "holderIdentity": "a",
        "leaseDurationSeconds": DURATION_SECONDS,
        "acquireTime": "2026-01-02T03:04:05.678901Z",
        "renewTime": "2026-01-02T03:04:05.678901Z",
        "leaseTransitions": 0,
    }


async def test_writing_stops_before_another_may_take_over(candidate, server, clock):
    first, second = candidate("a"), candidate("b")
    await first.acquire()
    async with doing(second.acquire()) as taking:
        before = server.reads
        await until(lambda: server.reads > before)
        clock.seconds += 10
        assert not first.held()
        before = server.version
        clock.seconds += DURATION_SECONDS - 10
        await asyncio.sleep(0.05)
        assert server.version == before, "not a moment too early"
        assert not taking.done()
        clock.seconds += 0.1
        await until(taking.done)
    assert second.held()
    assert server.live["spec"]["holderIdentity"] == "b"
    assert server.live["spec"]["leaseTransitions"] == 1


async def test_a_holder_that_renews_keeps_it_whatever_its_wall_clock_says(candidate, server, clock):
    first, second = candidate("a"), candidate("b")
    await first.acquire()
    async with doing(first.keep()), doing(second.acquire()) as taking:
        for _ in range(20):
            clock.seconds += 4
            before = server.writes
            await until(lambda before=before: server.writes > before)
            await until(lambda: second.attempt_age_seconds() == 0)
        assert first.held()
        assert not taking.done()


async def test_what_is_given_up_is_taken_at_once(candidate, server, clock):
    first, second = candidate("a"), candidate("b")
    await first.acquire()
    await first.release()
    assert not first.held()
    async with asyncio.timeout(30):
        await second.acquire()
    assert second.held()


async def test_a_container_started_anew_in_the_same_pod_goes_on_at_once(candidate):
    await candidate("a").acquire()
    again = candidate("a")
    async with asyncio.timeout(30):
        await again.acquire()
    assert again.held()


async def test_another_holder_ends_us(candidate, server, clock):
    ours = candidate("a")
    await ours.acquire()
    async with doing(ours.keep()) as keeping:
        server.edited(holderIdentity="b")
        with pytest.raises(LeadershipLost, match="b holds the Lease now"):
            await asyncio.wait_for(asyncio.shield(keeping), 30)
    assert not ours.held()


async def test_an_edit_that_leaves_us_the_holder_is_written_over(candidate, server):
    ours = candidate("a")
    await ours.acquire()
    async with doing(ours.keep()):
        server.edited(leaseDurationSeconds=1)
        await until(lambda: server.live["spec"]["leaseDurationSeconds"] == DURATION_SECONDS)
    assert ours.held()


async def test_a_deleted_lease_is_made_anew(candidate, server):
    ours = candidate("a")
    await ours.acquire()
    async with doing(ours.keep()):
        server.live = None
        await until(lambda: server.live is not None)
    assert server.live["spec"]["holderIdentity"] == "a"


async def test_an_api_server_that_is_away_stops_writing_and_after_ten_minutes_the_process(
    candidate, server, clock
):
    ours = candidate("a")
    await ours.acquire()
    server.away = True
    async with doing(ours.keep()) as keeping:
        clock.seconds += 11
        assert not ours.held()
        clock.seconds += 580
        await asyncio.sleep(0.05)
        assert not keeping.done(), "it keeps trying"
        clock.seconds += 20
        with pytest.raises(LeadershipLost, match="ten minutes"):
            await asyncio.wait_for(asyncio.shield(keeping), 30)


async def test_an_api_server_that_comes_back_in_time_is_written_to_again(candidate, server, clock):
    ours = candidate("a")
    await ours.acquire()
    server.away = True
    async with doing(ours.keep()):
        clock.seconds += 60
        assert not ours.held()
        server.away = False
        await until(ours.held)


async def test_waiting_outlasts_an_api_server_that_is_away(candidate, server, clock):
    ours = candidate("a")
    server.away = True
    async with doing(ours.acquire()) as taking:
        clock.seconds += 30
        await asyncio.sleep(0.05)
        assert ours.attempt_age_seconds() == 30
        server.away = False
        await until(taking.done)
    assert ours.held()


async def test_a_lease_that_is_gone_is_not_taken_while_who_held_it_may_write(server, clock, candidate):
    holder, other = candidate("a"), candidate("b")
    await holder.acquire()
    waiting = asyncio.create_task(other.acquire())
    await until(lambda: server.reads > 2)
    server.live = None
    for _ in range(2):
        before = server.reads
        await until(lambda before=before: server.reads > before + 2)
        assert server.live is None
        clock.seconds += DURATION_SECONDS - 1
    assert not holder.held()
    await asyncio.wait_for(waiting, 30)
    assert other.held()


@pytest.mark.parametrize(
    "cleared", [{"leaseTransitions": None}, {"leaseTransitions": -7}], ids=["null", "negative"]
)
@pytest.mark.parametrize(("holder", "counted"), [("a", 0), ("", 1)], ids=["ours", "free"])
async def test_transitions_that_somebody_cleared_are_counted_from_zero(
    candidate, server, cleared, holder, counted
):
    await candidate("a").acquire()
    server.edited(holderIdentity=holder, **cleared)
    await candidate("a").acquire()
    assert server.live["spec"]["leaseTransitions"] == counted


async def test_a_lease_without_a_spec_is_free(candidate, server):
    await candidate("a").acquire()
    server._store({key: value for key, value in server.live.items() if key != "spec"})
    await candidate("b").acquire()
    assert server.live["spec"]["holderIdentity"] == "b"
    assert server.live["spec"]["leaseTransitions"] == 1


async def test_a_lease_whose_duration_somebody_cleared_lasts_as_long_as_one_of_ours(candidate, server, clock):
    await candidate("a").acquire()
    server.edited(leaseDurationSeconds=None)
    other = candidate("b")
    async with doing(other.acquire()):
        await until(lambda: server.reads > 3)
        assert not other.held()
        clock.seconds += DURATION_SECONDS + 1
        await until(other.held)
