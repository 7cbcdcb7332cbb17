# SPDX-License-Identifier: Apache-2.0
"""The outcomes that the open-loop load derives from a server's behaviour."""

import asyncio

import pytest
from aiohttp import web

from sd_testkit.cluster.control_plane import free_ports
from sd_testkit.generators.open_load import Answer, Load, shares


@pytest.fixture
async def load():
    """A load of three requests on a server with this handler."""
    runners = []

    async def on(handler):
        application = web.Application()
        application.router.add_get("/", handler)
        runner = web.AppRunner(application)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        (address,) = runner.addresses
        return Load(f"http://127.0.0.1:{address[1]}/", {}, per_second=1000, most=3)

    yield on
    for runner in runners:
        await runner.cleanup()


async def ended(load):
    async with load.running() as traffic, asyncio.timeout(60):
        while traffic.sent < load.most or traffic.under_way:  # noqa: ASYNC110 - a server decides
            await asyncio.sleep(0.01)
    return traffic.answers


async def test_nobody_waits_for_the_answer_of_another(load):
    all_there, seeds = asyncio.Event(), []

    async def wait(request):
        seeds.append(request.query["seed"])
        if len(seeds) == 3:
            all_there.set()
        await all_there.wait()
        return web.Response()

    answers = await ended(await load(wait))
    assert shares(answers) == {"answered": 3}
    assert sorted(seeds) == ["0", "1", "2"]


async def test_a_connection_that_is_cut_is_lost(load):
    async def cut(request):
        request.transport.close()
        return web.Response()

    assert shares(await ended(await load(cut))) == {"lost": 3}


async def test_nobody_there_is_refused():
    (port,) = free_ports(1)
    nobody = Load(f"http://127.0.0.1:{port}/", {}, per_second=1000, most=3)
    assert shares(await ended(nobody)) == {"refused": 3}


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (503, {"x-request-id": "a"}, "retryable"),
        (429, {"x-request-id": "a"}, "retryable"),
        (503, {}, "lost"),
        (500, {"x-request-id": "a"}, "lost"),
        (400, {"x-request-id": "a"}, "lost"),
    ],
)
async def test_an_error_is_retryable_if_it_says_so_and_has_an_id(load, status, headers, outcome):
    async def fail(request):
        return web.Response(status=status, headers=headers, text="why")

    answers = await ended(await load(fail))
    assert shares(answers) == {outcome: 3}
    assert {each.words for each in answers} == {"why"}


def test_one_without_any_answer_is_lost():
    assert Answer(0.0, 1.0, words="ServerDisconnectedError: gone").outcome == "lost"
