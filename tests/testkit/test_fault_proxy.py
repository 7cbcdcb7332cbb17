# SPDX-License-Identifier: Apache-2.0
"""Each fault has its effect on the matching requests only. All other requests pass through unchanged."""

import asyncio
import json

import aiohttp
import pytest
import yaml
from aiohttp import web

from sd_testkit.fault_proxy import (
    Cut,
    Delay,
    Drop,
    Edit,
    FaultProxy,
    Hold,
    Lines,
    Match,
    Relay,
    Replay,
    Reply,
    Twice,
)
from sd_testkit.fault_proxy.request import read_request

PODS = "/api/v1/namespaces/team/pods"
WATCH = f"{PODS}?watch=true"
LOST = (aiohttp.ClientError, ConnectionError)


class Server:
    """An API server that counts what it got, answers with the version, and says in a watch what a test tells it."""

    def __init__(self):
        self.got, self.version, self.events = [], 1, asyncio.Queue()

    async def handle(self, raw):
        self.got.append((raw.method, raw.path_qs, raw.headers.get("Authorization"), await raw.read()))
        if raw.query.get("watch") or raw.query.get("follow"):
            response = web.StreamResponse()
            await response.prepare(raw)
            while (event := await self.events.get()) is not None:
                await response.write(event)
            return response
        return web.json_response({"version": self.version, "padding": "x" * 1000})


@pytest.fixture
async def server():
    return Server()


@pytest.fixture
async def proxy(server, tmp_path):
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    behind = tmp_path / "behind.kubeconfig"
    behind.write_text(
        yaml.safe_dump(
            {
                "clusters": [
                    {"name": "c", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}
                ],
                "users": [{"name": "u", "user": {"token": "real"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    async with FaultProxy(behind, tmp_path) as started:
        yield started
    await runner.cleanup()


@pytest.fixture
async def client(proxy):
    base = yaml.safe_load(proxy.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    headers = {"Authorization": "Bearer proxied"}
    async with aiohttp.ClientSession(base, headers=headers, timeout=aiohttp.ClientTimeout(10)) as session:
        yield session


@pytest.fixture
def get(client):
    async def ask(path=PODS):
        async with client.get(path) as answer:
            return answer.status, await answer.json()

    return ask


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "text"),
    [
        ("GET", "/version", {}, b"", "get /version"),
        ("GET", "/apis", {}, b"", "get /apis"),
        ("GET", "/apis/ray.io/v1", {}, b"", "get /apis/ray.io/v1"),
        ("GET", "/api/v1/namespaces", {}, b"", "list namespaces"),
        ("GET", "/api/v1/namespaces/team", {}, b"", "get namespaces/team"),
        ("GET", "/apis/ray.io/v1/rayservices", {"watch": "true"}, b"", "watch rayservices"),
        ("PATCH", "/apis/a/v1/namespaces/n/things/x/status", {}, b"", "patch things/x/status"),
        ("POST", "/api/v1/namespaces/n/pods", {}, b'{"metadata": {"name": "x"}}', "create pods/x"),
        ("DELETE", "/apis/apps/v1/namespaces/n/daemonsets/x", {}, b"", "delete daemonsets/x"),
    ],
)
def test_requests_are_read_as_authorization_reads_them(method, path, query, body, text):
    assert str(read_request(method, path, query, body, "")) == text


async def test_what_meets_no_rule_passes_unchanged_and_is_noted(proxy, server, client):
    path = f"{PODS}/a?labelSelector=a%3Db&fieldManager=x"
    async with client.patch(path, data=b'{"a": 1}') as answer:
        assert (answer.status, (await answer.json())["version"]) == (200, 1)
    assert server.got == [("PATCH", path, "Bearer real", b'{"a": 1}')]
    (entry,) = proxy.journal.entries
    assert (str(entry.request), entry.status, entry.changed) == ("patch pods/a", 200, True)


async def test_an_answer_that_is_relayed_is_given_on_as_it_comes(proxy, server, client):
    with proxy.rule(Match.of("list", "pods"), Relay()):
        async with client.get(PODS) as answer:
            assert (answer.status, (await answer.json())["version"]) == (200, 1)
        await server.events.put(b"one")
        async with client.get(f"{PODS}?follow=true") as answer:
            assert await answer.content.readexactly(3) == b"one"
            await server.events.put(b"two")
            assert await answer.content.readexactly(3) == b"two"


async def test_a_rule_takes_the_requests_it_names_from_the_nth_on(proxy, get):
    with proxy.rule(Match.of("list", "pods"), Reply(503), first=2, times=1) as rule:
        assert (await get("/api/v1/namespaces/team/secrets"))[0] == 200
        assert [(await get())[0] for _ in range(4)] == [200, 503, 200, 200]
        assert (rule.seen, rule.hits) == (4, 1)
    assert (await get())[0] == 200


async def test_a_reply_has_status_body_and_headers_and_is_not_forwarded(proxy, server, client):
    proxy.add(Match.of("list"), Reply(429, "slow down", {"Retry-After": "7"}))
    async with client.get(PODS) as answer:
        body = await answer.json()
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        assert (body["kind"], body["reason"], body["message"]) == ("Status", "TooManyRequests", "slow down")
    assert server.got == []


@pytest.mark.parametrize(("after", "count"), [(False, 0), (True, 1)], ids=["before", "after"])
async def test_a_dropped_connection_has_no_answer(proxy, server, client, after, count):
    proxy.add(Match.of("write"), Drop(after=after))
    with pytest.raises(LOST):
        await client.post(PODS, data=b"{}")
    assert len(server.got) == count
    assert proxy.journal.entries[0].changed == after


async def test_a_repeated_request_arrives_twice(proxy, server, client):
    proxy.add(Match.of("write"), Twice())
    async with client.post(PODS, data=b"{}") as answer:
        assert answer.status == 200
    assert len(server.got) == 2


async def test_a_cut_answer_breaks_off(proxy, get):
    with proxy.rule(Match(), Cut()), pytest.raises(LOST):
        await get()
    assert (await get())[0] == 200


async def test_a_delay_comes_before_forwarding(proxy, server, get):
    proxy.add(Match(), Delay(0.3))
    asked = asyncio.create_task(get())
    await asyncio.sleep(0)
    assert server.got == []
    assert (await asked)[0] == 200


@pytest.mark.parametrize(("after", "count"), [(False, 0), (True, 1)], ids=["before", "after"])
async def test_a_held_request_waits(proxy, server, client, after, count):
    hold = Hold(after=after)
    with proxy.rule(Match.of("write"), hold):
        asked = asyncio.create_task(client.post(PODS, data=b"{}"))
        await asyncio.wait_for(hold.caught.wait(), 10)
        assert len(server.got) == count
        assert not asked.done()
    assert (await asked).status == 200
    assert len(server.got) == 1


async def test_who_is_killed_while_held_sends_nothing_any_more(proxy, server, client):
    hold = Hold()
    rule = proxy.add(Match.of("write"), hold)
    asked = asyncio.create_task(client.post(PODS, data=b"{}"))
    await asyncio.wait_for(hold.caught.wait(), 10)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await client.get(PODS)
    proxy.remove(rule)
    await client.get(PODS)
    assert [each[0] for each in server.got] == ["GET", "GET"]


async def test_an_answer_can_be_edited_or_be_that_of_yesterday(proxy, server, get):
    with proxy.recording() as answers:
        await get()
    server.version = 2
    with proxy.rule(Match.of("list"), Replay(answers)):
        assert (await get())[1]["version"] == 1
        assert (await get(f"{PODS}?limit=1"))[1]["version"] == 2
    with proxy.rule(Match.of("list"), Edit(lambda body: {**body, "version": 0})):
        assert (await get())[1]["version"] == 0


def event(number):
    return {"type": "ADDED", "object": {"number": number}}


def line(body):
    return json.dumps(body).encode() + b"\n"


async def test_a_watch_passes_line_by_line_as_it_is_said(proxy, server, client):
    long = {"type": "ADDED", "object": {"text": "x" * 300_000}}
    async with client.get(WATCH) as answer:
        content = answer.content
        server.events.put_nowait(line(event(1))[:9])
        server.events.put_nowait(line(event(1))[9:])
        assert json.loads(await content.readuntil(b"\n")) == event(1)
        server.events.put_nowait(line(event(2)) + line(long))
        assert json.loads(await content.readuntil(b"\n")) == event(2)
        assert len(await content.readexactly(len(line(long)))) == len(line(long))
        server.events.put_nowait(None)
        assert await content.read() == b""


async def test_a_watch_can_be_silenced_doubled_and_spoken_into(proxy, server, client):
    async with client.get(WATCH) as answer:

        async def heard():
            return json.loads(await answer.content.readuntil(b"\n"))

        swallowed = asyncio.Event()
        with proxy.rule(Match.of("watch"), Lines(lambda _: swallowed.set() or [])):
            server.events.put_nowait(line(event(1)))
            await asyncio.wait_for(swallowed.wait(), 10)
        with proxy.rule(Match.of("watch"), Lines(lambda one: [one, one])) as doubled:
            server.events.put_nowait(line(event(2)))
            assert [await heard(), await heard()] == [event(2), event(2)]
            assert doubled.hits == 1
        assert await proxy.say(Match.of("watch", "pods"), event(3)) == 1
        assert await proxy.say(Match.of("watch", "secrets"), event(4)) == 0
        assert await heard() == event(3)
        assert await proxy.say_error(Match.of("watch"), 410) == 1
        told = await heard()
        assert (told["type"], told["object"]["code"], told["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await answer.content.read() == b""
    assert proxy.streams(Match()) == []


@pytest.mark.parametrize("how", ["reset", "mid-line"])
async def test_a_watch_can_break_off(proxy, server, client, how):
    async with client.get(WATCH) as answer:
        server.events.put_nowait(line(event(1)))
        await answer.content.readuntil(b"\n")
        await proxy.end(Match.of("watch"), how)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.read()


async def test_a_server_that_is_away_is_a_reset(proxy, get):
    proxy._upstream = type(proxy._upstream)("http://127.0.0.1:1", None, {})
    with pytest.raises(LOST):
        await get()
    with pytest.raises(LOST):
        await get(WATCH)
