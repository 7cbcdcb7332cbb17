# SPDX-License-Identifier: Apache-2.0
"""A complete body is sent together with its headers. Any other body is sent as Serve does it."""

import asyncio
import pickle

import pytest
from ray.serve._private.common import StreamingHTTPRequest

from sd_runtime.serving import whole_body
from sd_runtime.serving.whole_body import WholeBody

WHOLE = {"type": "http.request", "body": b'{"prompt": "a red circle"}', "more_body": False}
PART = {"type": "http.request", "body": b'{"prompt": ', "more_body": True}
REST = {"type": "http.request", "body": b'"a red circle"}', "more_body": False}
GONE = {"type": "http.disconnect"}


@pytest.fixture
def travels():
    """Send messages to an application through the middleware; the scope it gets, pickled as Serve does it, and what it reads."""

    async def send(*messages, kind="http"):
        seen = []
        waiting = asyncio.Queue()
        for each in messages:
            waiting.put_nowait(each)

        async def application(scope, receive, _):
            seen.append(pickle.dumps(scope))
            seen.extend([await receive() for _ in messages])

        await WholeBody(application)({"type": kind, "headers": []}, waiting.get, None)
        scope, *read = seen
        return pickle.loads(scope), read  # noqa: S301 - our own

    return send


@pytest.fixture
def proxied(monkeypatch):
    """Serve's request with this scope, in a process where bodies are expected; Serve itself would ask the proxy."""

    async def ask(_):
        return b"asked"

    def of(scope):
        return StreamingHTTPRequest(scope, receive_asgi_messages=ask)

    own = StreamingHTTPRequest.receive_asgi_messages
    whole_body.install()
    yield of
    StreamingHTTPRequest.receive_asgi_messages = own


@pytest.mark.parametrize("body", [WHOLE, {"type": "http.request"}])
async def test_a_whole_body_travels_with_its_headers(travels, proxied, body):
    scope, read = await travels(body, GONE)
    assert read == [body, GONE]  # the proxy waits for the client to leave
    request = proxied(scope)
    messages = request.receive_asgi_messages
    (message,) = pickle.loads(await messages(None))  # noqa: S301 - our own
    assert (message["body"], message["more_body"]) == (body.get("body", b""), False)
    assert request.asgi_scope == {"type": "http", "headers": []}


async def test_nothing_follows_a_whole_body(travels, proxied):
    scope, _ = await travels(WHOLE)
    messages = proxied(scope).receive_asgi_messages
    await messages(None)
    following = asyncio.ensure_future(messages(None))
    await asyncio.sleep(0)
    assert not following.done()
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


@pytest.mark.parametrize("messages", [(PART, REST, GONE), (GONE,)])
async def test_what_is_no_whole_body_goes_serves_way(travels, proxied, messages):
    scope, read = await travels(*messages)
    assert read == list(messages)
    assert await proxied(scope).receive_asgi_messages(None) == b"asked"


async def test_a_body_that_takes_its_time_keeps_nobody_waiting(proxied):
    arriving, begun = asyncio.Queue(), asyncio.Event()
    seen = []

    async def application(scope, receive, _):
        seen.append(dict(scope))
        begun.set()
        seen.append(await receive())

    serving = asyncio.ensure_future(WholeBody(application)({"type": "http"}, arriving.get, None))
    await begun.wait()
    arriving.put_nowait(WHOLE)
    await serving
    assert seen == [{"type": "http"}, WHOLE]
    assert await proxied(seen[0]).receive_asgi_messages(None) == b"asked"


async def test_what_nobody_reads_is_no_longer_waited_for():
    waiting = []

    async def receive():
        waiting.append(asyncio.current_task())
        await asyncio.Event().wait()

    async def application(*_):
        """Answers without the body."""

    await WholeBody(application)({"type": "http"}, receive, None)
    (task,) = waiting
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_other_protocols_pass(travels):
    scope, _ = await travels(kind="lifespan")
    assert scope == {"type": "lifespan", "headers": []}
