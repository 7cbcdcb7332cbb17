# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

import pytest

from sd_operator.errors import RayUnavailable
from sd_operator.naming import Key
from sd_operator.serve_reader import Place, ServeReader

KEY = Key("team", "imagine")
PLACE = Place("team", "imagine-abcde", "head-1", "token")
RUNNING = {"applications": {"imagine": {"status": "RUNNING"}}}
UNHEALTHY = {"applications": {"imagine": {"status": "UNHEALTHY"}}}


class Ray:
    """A dashboard that answers as told, and a clock."""

    def __init__(self):
        self.answer = RUNNING
        self.asked = 0
        self.now = datetime(2026, 1, 2, tzinfo=UTC)
        self.reader = ServeReader(self.ask, lambda: self.now)
        self.changed = []

    async def ask(self, place):
        self.asked += 1
        if self.answer is None:
            raise RayUnavailable("no answer from Ray")
        return self.answer

    async def read(self, place=PLACE):
        return (await self.reader.read(KEY, [place])).get(place.cluster)

    async def poll(self):
        self.changed.clear()
        await self.reader.once(self.changed.append)
        return self.changed

    def later(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def ray():
    return Ray()


async def test_an_answer_is_fresh(ray):
    found = await ray.read()
    assert (found.state.status, found.at, found.fresh) == ("RUNNING", ray.now, True)


async def test_silence_is_bridged_for_two_minutes_by_what_was_told_last(ray):
    told = ray.now
    await ray.read()
    ray.answer = None
    ray.later(110)
    found = await ray.read()
    assert (found.state.status, found.at, found.fresh) == ("RUNNING", told, False)
    ray.later(20)
    assert await ray.read() is None


async def test_what_a_head_told_outlives_it_where_its_state_does(ray):
    def place(head):
        return Place("team", "imagine-abcde", head, "token", outlives_head=True)

    told = ray.now
    await ray.read(place("head-1"))
    ray.later(60)
    found = await ray.read(place(None))
    assert (found.at, found.fresh, ray.asked) == (told, False, 1)
    ray.answer = None
    assert (await ray.read(place("head-2"))).at == told
    ray.later(20)
    ray.answer = UNHEALTHY
    assert (await ray.read(place("head-2"))).state.status == "UNHEALTHY"
    ray.later(130)
    assert await ray.poll() == []
    assert (await ray.read(place(None))).fresh is False
    ray.later(130)
    assert await ray.poll() == [KEY], "its time is over although nothing else happened"
    assert await ray.read(place(None)) is None


async def test_what_a_former_head_told_is_forgotten(ray):
    await ray.read()
    ray.answer = None
    assert await ray.read(Place("team", "imagine-abcde", "head-2", "token")) is None


async def test_a_dashboard_that_does_not_answer_is_left_alone_for_a_while(ray):
    ray.answer = None
    await ray.read()
    await ray.read()
    assert ray.asked == 1
    ray.later(11)
    await ray.read()
    assert ray.asked == 2


async def test_a_poll_tells_of_changes_only(ray):
    await ray.read()
    ray.later(30)
    assert await ray.poll() == []
    ray.answer = UNHEALTHY
    assert await ray.poll() == [KEY]
    assert await ray.poll() == []
    ray.answer = None
    assert await ray.poll() == [KEY], "its knowledge is old from now on, which a status tells"
    ray.later(30)
    assert await ray.poll() == []
    ray.later(120)
    assert await ray.poll() == [KEY], "and too old to count"


async def test_who_is_not_asked_for_any_more_is_not_polled(ray):
    await ray.read()
    await ray.reader.read(KEY, [])
    assert await ray.poll() == []
    assert ray.asked == 1


async def test_deployments_are_remembered_while_an_application_is_built(ray):
    replica = {"state": "RUNNING"}
    model = {"status": "HEALTHY", "replicas": [replica]}
    ray.answer = {"applications": {"imagine": {"status": "RUNNING", "deployments": {"model": model}}}}
    await ray.read()
    ray.answer = {"applications": {"imagine": {"status": "DEPLOYING", "deployments": {}}}}
    assert (await ray.read()).state.running("model") == 1
    ray.later(60)
    assert (await ray.read()).state.running("model") == 1
