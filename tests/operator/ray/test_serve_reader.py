# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

import pytest

from sd_operator.errors import RayUnavailable
from sd_operator.ray.serve_reader import Asks, DashboardTarget, Memory, ServeReader

PLACE = DashboardTarget("team", "imagine-abcde", "head-1", "token")


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


class Head:
    """A head that answers as told, and a clock."""

    def __init__(self):
        self.answer = {"applications": {"imagine": {"status": "RUNNING"}}}
        self.starts = {}
        self.asked_for_starts = 0
        self.now = datetime(2026, 1, 2, tzinfo=UTC)
        self.memory = Memory()
        self.reader = ServeReader(Asks(self.ask, self.ask_for_starts), lambda: self.now)

    async def ask(self, place, seconds):
        return self.answer

    async def ask_for_starts(self, place, seconds):
        self.asked_for_starts += 1
        if self.starts is None:
            raise RayUnavailable("Ray answers 404: Not Found")
        return {"starts": self.starts}

    async def read(self):
        self.memory = await self.reader.read(PLACE, self.memory, 1)
        return self.memory.reading

    def later(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def head():
    return Head()


async def test_an_answer_is_fresh(head):
    found = await head.read()
    assert (found.state.status, found.at, found.fresh) == ("RUNNING", head.now, True)


async def test_an_answer_of_another_shape_is_none(head):
    head.answer = {"applications": []}
    with pytest.raises(RayUnavailable, match="applications is a list, not an object"):
        await head.read()


async def test_deployments_are_remembered_while_an_application_is_built(head):
    head.answer = holds(a="RUNNING")
    await head.read()
    head.answer = {"applications": {"imagine": {"status": "DEPLOYING", "deployments": {}}}}
    assert (await head.read()).state.running("model") == 1
    head.later(60)
    assert (await head.read()).state.running("model") == 1


async def test_a_start_is_asked_about_until_its_first_picture(head):
    head.answer, head.starts = holds(a="STARTING"), {"a": report("weights")}
    assert (await head.read()).starts["a"].phase == "weights"
    head.answer, head.starts = holds(a="RUNNING"), {"a": report()}
    assert (await head.read()).starts["a"].phase == ""
    head.starts = {"a": report(picture=3.0)}
    await head.read()
    assert (await head.read()).starts["a"].first_picture_seconds == 3.0
    assert head.asked_for_starts == 3, "there was nothing more to learn"


@pytest.mark.parametrize("starts", [{"a": report()}, {}, None], ids=["no picture", "another release", "404"])
async def test_a_replica_that_tells_nothing_more_is_asked_for_ten_minutes(head, starts):
    head.answer, head.starts = holds(a="RUNNING"), starts
    for _ in range(30):
        await head.read()
        head.later(30)
    assert head.asked_for_starts == 20


async def test_a_long_start_is_asked_about_to_its_end(head):
    head.answer, head.starts = holds(a="STARTING"), {"a": report("weights")}
    await head.read()
    head.later(3600)
    head.answer, head.starts = holds(a="RUNNING"), {"a": report()}
    assert (await head.read()).starts["a"].phase == ""


async def test_what_a_replica_told_goes_with_it(head):
    head.answer, head.starts = holds(a="RUNNING"), {"a": report(picture=3.0), "another": report()}
    assert set((await head.read()).starts) == {"a"}
    head.answer = holds(b="RUNNING")
    assert set((await head.read()).starts) == set()


async def test_a_head_without_an_answer_about_starts_still_tells_of_serve(head):
    head.answer, head.starts = holds(a="RUNNING"), None
    found = await head.read()
    assert (found.fresh, found.state.running("model"), found.starts) == (True, 1, {})


def test_a_token_is_in_no_log():
    assert "token" not in repr(PLACE).replace("token=", "")
