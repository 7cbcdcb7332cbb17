# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

import pytest

from sd_operator.errors import RayUnavailable
from sd_operator.naming import Key
from sd_operator.serve_reader import Asks, Place, ServeReader

KEY = Key("team", "imagine")
PLACE = Place("team", "imagine-abcde", "head-1", "token")
RUNNING = {"applications": {"imagine": {"status": "RUNNING"}}}
UNHEALTHY = {"applications": {"imagine": {"status": "UNHEALTHY"}}}


class Ray:
    """A head that answers as told, and a clock."""

    def __init__(self):
        self.answer = RUNNING
        self.asked = 0
        self.starts = {}
        self.asked_for_starts = 0
        self.now = datetime(2026, 1, 2, tzinfo=UTC)
        self.reader = ServeReader(Asks(self.ask, self.ask_for_starts), lambda: self.now)
        self.changed = []

    async def ask(self, place):
        self.asked += 1
        if self.answer is None:
            raise RayUnavailable("no answer from Ray")
        return self.answer

    async def ask_for_starts(self, place):
        self.asked_for_starts += 1
        if self.starts is None:
            raise RayUnavailable("Ray answers 404: Not Found")
        return {"starts": self.starts}

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


def holds(**states):
    """Serve's answer with these replicas of the model."""
    replicas = [{"replica_id": name, "state": state, "node_ip": "10.0.0.2"} for name, state in states.items()]
    model = {"status": "UPDATING", "target_num_replicas": 1, "replicas": replicas}
    return {"applications": {"imagine": {"status": "RUNNING", "deployments": {"model": model}}}}


def report(phase="", picture=None):
    return {
        "began": 100.0,
        "seconds": {"import": 9.5},
        "phase": phase,
        "since": 109.5,
        "first_picture_seconds": picture,
    }


async def test_a_start_is_asked_about_until_its_first_picture(ray):
    ray.answer, ray.starts = holds(a="STARTING"), {"a": report("weights")}
    assert (await ray.read()).starts["a"].phase == "weights"
    ray.answer, ray.starts = holds(a="RUNNING"), {"a": report()}
    assert await ray.poll() == [KEY]
    ray.starts = {"a": report(picture=3.0)}
    assert await ray.poll() == [KEY]
    assert await ray.poll() == []
    assert (await ray.read()).starts["a"].first_picture_seconds == 3.0
    assert ray.asked_for_starts == 3, "there was nothing more to learn"


async def test_who_tells_nothing_is_asked_for_ten_minutes(ray):
    """A picture that never comes, and an image of another release."""
    for starts in ({"a": report()}, {}, None):
        ray.reader.forget(KEY)
        ray.answer, ray.starts, ray.asked_for_starts = holds(a="RUNNING"), starts, 0
        for _ in range(30):
            await ray.read()
            ray.later(30)
        assert ray.asked_for_starts == 20, starts


async def test_a_long_start_is_asked_about_to_its_end(ray):
    ray.answer, ray.starts = holds(a="STARTING"), {"a": report("weights")}
    await ray.read()
    ray.later(3600)
    ray.answer, ray.starts = holds(a="RUNNING"), {"a": report()}
    assert (await ray.read()).starts["a"].phase == ""


async def test_what_a_replica_told_goes_with_it(ray):
    ray.answer, ray.starts = holds(a="RUNNING"), {"a": report(picture=3.0), "another": report()}
    assert set((await ray.read()).starts) == {"a"}
    ray.answer = holds(b="RUNNING")
    assert set((await ray.read()).starts) == set()


async def test_a_head_without_an_answer_about_starts_still_tells_of_serve(ray):
    ray.answer, ray.starts = holds(a="RUNNING"), None
    found = await ray.read()
    assert (found.fresh, found.state.running("model"), found.starts) == (True, 1, {})
