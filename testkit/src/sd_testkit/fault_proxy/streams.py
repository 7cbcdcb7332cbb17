# SPDX-License-Identifier: Apache-2.0
"""One watch on its way through the proxy: line by line, as they come, and open to what a test has to say."""

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
        request: what is watched.
        response: where its events go; prepared.
        transport: its connection.
        change: what becomes of each event, asked anew for each.
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
        """Pass on until the API server ends it, or `end` was called."""
        passing = asyncio.ensure_future(self._pass(answer))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({passing, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            passing.cancel()
            ended.cancel()
            await asyncio.gather(passing, ended, return_exceptions=True)

    async def say(self, event: Json) -> None:
        """Put an event of our own into it."""
        await self._response.write(json.dumps(event).encode() + b"\n")

    async def end(self, how: Ending) -> None:
        """End it as a network does, or, with a last chunk, as a server or a proxy that stops does."""
        if how.startswith("mid-line"):
            await self._response.write(b'{"type":"MODIFIED","object":{"apiVersion":')
        if not how.endswith("eof") and self._transport is not None:
            # Whatever was written is sent first; there is no last chunk.
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
    """Complete lines without their end, each as soon as it is there, however long."""
    rest = b""
    async for part in content.iter_any():
        *whole, rest = (rest + part).split(b"\n")
        for each in whole:
            if each:
                yield each
