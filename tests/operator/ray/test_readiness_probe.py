# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from sd_operator.bounded_http import connections
from sd_operator.errors import RayTooSlow
from sd_operator.naming import Key
from sd_operator.ray import readiness_probe
from sd_operator.ray.probe_poller import Door, ProbePoller

KEY, DOOR = Key("team", "imagine"), Door("team", "imagine-serve-svc")


@pytest.fixture
async def session():
    async with connections(5) as found:
        yield found


async def test_a_service_says_yes_or_no(http_server, session):
    codes = [200, 503]
    url, asked = http_server(lambda _: (codes.pop(0), b'{"ready": true}'))
    probe = readiness_probe.directly(session, lambda *name: f"{url}/{'/'.join(name)}")
    assert [await probe("team", "imagine-serve-svc", 5) for _ in range(2)] == [True, False]
    assert asked == ["/imagine-serve-svc/team/readyz"] * 2


async def test_no_answer_is_no(session):
    probe = readiness_probe.directly(session, lambda *_: "http://127.0.0.1:9")
    assert not await probe("team", "imagine-serve-svc", 5)


class Service:
    """One that says what it is told to say, and its poller."""

    def __init__(self):
        self.says, self.changed = True, []
        self.poller = ProbePoller(self.probe)

    async def probe(self, namespace, service, seconds):
        if self.says is None:
            raise RayTooSlow("no answer")
        return self.says


@pytest.fixture
async def service():
    found = Service()
    task = asyncio.create_task(found.poller.run(found.changed.append))
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def test_a_pass_gets_the_latest_answer_and_is_told_of_another(service):
    assert service.poller.seen(KEY, DOOR, 0) is None
    await until(lambda: service.changed == [KEY])
    assert service.poller.seen(KEY, DOOR, 0) is True
    service.says = False
    assert service.poller.seen(KEY, DOOR, 1) is True, "it is asked again, for what happened meanwhile"
    await until(lambda: service.changed == [KEY, KEY])
    assert service.poller.seen(KEY, DOOR, 1) is False


async def test_who_does_not_answer_in_time_says_no(service):
    service.says = None
    service.poller.seen(KEY, DOOR, 0)
    await until(lambda: service.changed == [KEY])
    assert service.poller.seen(KEY, DOOR, 0) is False


async def test_who_is_asked_no_more_tells_nobody(service):
    service.poller.seen(KEY, DOOR, 0)
    service.poller.forget(KEY)
    await asyncio.sleep(0.1)
    assert service.changed == []


async def test_another_service_is_another_question(service):
    service.poller.seen(KEY, DOOR, 0)
    await until(lambda: service.changed)
    assert service.poller.seen(KEY, Door("team", "imagine-b-serve-svc"), 0) is None


async def test_asking_waits_for_the_answer(service):
    assert await service.poller.ask(KEY, DOOR) is True
    service.says = None
    assert await service.poller.ask(KEY, DOOR) is False
