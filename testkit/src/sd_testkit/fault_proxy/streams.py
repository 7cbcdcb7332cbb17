# SPDX-License-Identifier: Apache-2.0
"""One watch on its way through the proxy. Lines pass as they arrive, and a test can insert its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable

import aiohttp
from aiohttp import web

from sd_testkit.fault_proxy.faults import Ending
from sd_testkit.fault_proxy.request import ApiRequest
from sd_testkit.json_types import Json

Change = Callable[[Json], Iterable[Json]]


class Stream:
    """A running watch.

    Args:
        request: the request of the watch.
        response: the prepared response that receives the events.
        transport: the connection of the client.
        change: the function that changes each event; the stream calls it for every event.
    """

    def __init__(
        self,
        request: ApiRequest,
        response: web.StreamResponse,
        transport: asyncio.Transport | None,
        change: Change,
    ) -> None:
        self.request = request
        self._response = response
        self._transport = transport
        self._change = change
        self._ended = asyncio.Event()

    async def relay(self, answer: aiohttp.ClientResponse) -> None:
        """Relay events until the API server ends the watch or a caller uses `end`."""
        passing = asyncio.ensure_future(self._pass(answer))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({passing, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            passing.cancel()
            ended.cancel()
            await asyncio.gather(passing, ended, return_exceptions=True)

    async def say(self, event: Json) -> None:
        """Insert an event of the test into the watch."""
        await self._response.write(json.dumps(event).encode() + b"\n")

    async def end(self, how: Ending) -> None:
        """End the watch as a network does.

        With a last chunk, end the watch as a server or proxy does that shuts down.
        """
        if how.startswith("mid-line"):
            await self._response.write(b'{"type":"MODIFIED","object":{"apiVersion":')
        if not how.endswith("eof") and self._transport is not None:
            # Data that was written already is sent first. There is no last chunk.
            self._transport.close()
        self._ended.set()

    async def _pass(self, answer: aiohttp.ClientResponse) -> None:
        async for line in lines(answer.content):
            event = json.loads(line)
            after = list(self._change(event))
            if after == [event]:
                await self._response.write(line + b"\n")
            else:
                for each in after:
                    await self.say(each)


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Return complete lines without their end, each as soon as it has arrived, at any length."""
    rest = b""
    async for part in content.iter_any():
        *whole, rest = (rest + part).split(b"\n")
        for each in whole:
            if each:
                yield each
