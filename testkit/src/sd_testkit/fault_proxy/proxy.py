# SPDX-License-Identifier: Apache-2.0
"""The proxy: each request is noted, meets the first rule that takes it, and is forwarded otherwise."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

from sd_testkit.fault_proxy import faults
from sd_testkit.fault_proxy.faults import (
    Cut,
    Delay,
    Drop,
    Edit,
    Ending,
    Fault,
    Forward,
    Hold,
    Lines,
    Relay,
    Replay,
    Twice,
)
from sd_testkit.fault_proxy.faults import Reply as Refusal
from sd_testkit.fault_proxy.journal import Entry, Journal
from sd_testkit.fault_proxy.request import ApiRequest, read_request
from sd_testkit.fault_proxy.rules import Match, Rule
from sd_testkit.fault_proxy.streams import Stream
from sd_testkit.fault_proxy.upstream import kubeconfig_for, upstream
from sd_testkit.json_types import Json

_FAILED = (aiohttp.ClientError, OSError)
# Of one connection only; and no compression, so that bodies can be read.
_NOT_FORWARDED = {
    "host",
    "connection",
    "authorization",
    "accept-encoding",
    "content-length",
    "transfer-encoding",
}
_KEPT = {"content-type", "retry-after", "warning", "audit-id"}
_HOP = {"connection", "transfer-encoding", "date", "server"}
_JSON = {"Content-Type": "application/json"}
_OK = 200
_LARGEST = 64 * 1024 * 1024


class FaultProxy:
    """A server on loopback in front of the API server of a kubeconfig; an async context manager.

    Args:
        behind: kubeconfig of the API server, with the credentials that every request gets there.
        folder: where the kubeconfig of the proxy is written.
        tls: certificate and key of this server, and the authority that signed them; None: plain HTTP.
    """

    def __init__(self, behind: Path, folder: Path, tls: tuple[Path, Path, Path] | None = None) -> None:
        self.journal = Journal()
        self.kubeconfig = folder / "proxy.kubeconfig"
        self.port = 0
        self._upstream = upstream(behind)
        self._tls = tls
        self._rules: list[Rule] = []
        self._streams: set[Stream] = set()
        self._answers: dict[str, bytes] | None = None

    async def __aenter__(self) -> Self:
        """Start to listen."""
        connector = aiohttp.TCPConnector(limit=0, ssl=self._upstream.context or False)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        )
        application = web.Application(client_max_size=_LARGEST)
        application.router.add_route("*", "/{path:.*}", self._handle)
        # A client that goes away ends its request here too: a hold, a watch.
        self._runner = web.AppRunner(
            application, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._context())
        await site.start()
        self.port = self._runner.addresses[0][1]
        scheme, authority = ("https", self._tls[2]) if self._tls else ("http", None)
        self.kubeconfig.write_text(kubeconfig_for(f"{scheme}://127.0.0.1:{self.port}", authority=authority))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, with every connection."""
        await self._runner.cleanup()
        await self._session.close()

    def add(self, match: Match, fault: Fault, *, first: int = 1, times: int | None = None) -> Rule:
        """Set up a fault; rules that were added earlier come first."""
        rule = Rule(match, fault, first, times)
        self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Heal it; what it holds goes on."""
        self._rules.remove(rule)
        if isinstance(rule.fault, Hold):
            rule.fault.released.set()

    @contextmanager
    def rule(self, match: Match, fault: Fault, *, first: int = 1, times: int | None = None) -> Iterator[Rule]:
        """The same for the length of a block."""
        rule = self.add(match, fault, first=first, times=times)
        try:
            yield rule
        finally:
            self.remove(rule)

    @contextmanager
    def recording(self) -> Iterator[dict[str, bytes]]:
        """Remember the answers to reads, for `Replay`."""
        self._answers = {}
        try:
            yield self._answers
        finally:
            self._answers = None

    def streams(self, match: Match) -> list[Stream]:
        """The watches that run now."""
        return [each for each in self._streams if match(each.request)]

    async def say(self, match: Match, event: Json) -> int:
        """Put an event into running watches; return into how many."""
        found = self.streams(match)
        for each in found:
            await each.say(event)
        return len(found)

    async def say_error(self, match: Match, code: int, message: str = "injected") -> int:
        """Put an ERROR into running watches and end them, as the API server does; return how many they were."""
        found = self.streams(match)
        for each in found:
            await each.say({"type": "ERROR", "object": faults.status(code, message)})
            await each.end("eof")
        return len(found)

    async def end(self, match: Match, how: Ending) -> int:
        """End running watches; return how many they were."""
        found = self.streams(match)
        for each in found:
            await each.end(how)
        return len(found)

    def _context(self) -> ssl.SSLContext | None:
        if self._tls is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._tls[0], self._tls[1])
        return context

    async def _handle(self, raw: web.Request) -> web.StreamResponse:
        body = await raw.read()
        request = read_request(raw.method, raw.path, raw.query, body, raw.headers.get("Authorization", ""))
        entry = self.journal.add(request)
        fault = next((each.fault for each in self._rules if each.takes(request)), Forward())
        entry.fault = "" if isinstance(fault, Forward | Lines) else type(fault).__name__
        answer = await self._meet(raw, entry, fault)
        if answer is None:
            return _reset(raw)
        entry.status = answer.status
        return answer

    async def _meet(self, raw: web.Request, entry: Entry, fault: Fault) -> web.StreamResponse | None:
        """Do what the fault says; None: the connection is to be reset."""
        if isinstance(fault, Refusal):
            return _answer(fault.code, fault.content(), {**_JSON, **fault.headers})
        if isinstance(fault, Replay) and faults.key(entry.request) in fault.answers:
            return _answer(_OK, fault.answers[faults.key(entry.request)], _JSON)
        if isinstance(fault, Drop) and not fault.after:
            return None
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        if isinstance(fault, Hold) and not fault.after:
            await fault.wait()
        if entry.request.verb == "watch":
            return await self._watch(raw, entry)
        if isinstance(fault, Relay):
            return await self._relay(raw, entry)
        if isinstance(fault, Twice):
            await self._forward(raw, entry)
        answer = await self._forward(raw, entry)
        return None if answer is None else await _after(raw, answer, fault)

    async def _forward(self, raw: web.Request, entry: Entry) -> web.Response | None:
        """Ask the API server; None where it is away."""
        try:
            async with self._ask(raw, entry) as answer:
                content = await answer.read()
        except _FAILED:
            return None
        if self._answers is not None and not entry.request.is_write:
            self._answers[faults.key(entry.request)] = content
        return _answer(answer.status, content, _kept(answer))

    async def _watch(self, raw: web.Request, entry: Entry) -> web.StreamResponse | None:
        try:
            async with self._ask(raw, entry) as answer:
                response = web.StreamResponse(status=answer.status, headers=_kept(answer))
                await response.prepare(raw)
                entry.status = answer.status
                if answer.status != _OK:
                    await response.write(await answer.read())
                    return response
                stream = Stream(entry.request, response, raw.transport, self._changed(entry.request))
                self._streams.add(stream)
                try:
                    await stream.relay(answer)
                finally:
                    self._streams.discard(stream)
                return response
        except _FAILED:
            return None

    async def _relay(self, raw: web.Request, entry: Entry) -> web.StreamResponse | None:
        """The answer as it comes: none of it is kept, so it may be endless."""
        try:
            async with self._ask(raw, entry, allow_redirects=False) as answer:
                headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
                response = web.StreamResponse(status=answer.status, headers=headers)
                await response.prepare(raw)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                return response
        except (*_FAILED, ValueError):
            return None

    def _ask(self, raw: web.Request, entry: Entry, **more: Any) -> Any:
        entry.forwarded = True
        headers = {key: value for key, value in raw.headers.items() if key.lower() not in _NOT_FORWARDED}
        return self._session.request(
            raw.method,
            URL(self._upstream.server + raw.raw_path, encoded=True),
            headers={**headers, **self._upstream.headers, "Accept-Encoding": "identity"},
            data=BytesIO(entry.request.body) if entry.request.body else None,
            **more,
        )

    def _changed(self, request: ApiRequest) -> Any:
        """What becomes of an event: rules may come and go while a watch runs."""

        def change(event: Json) -> list[Json]:
            for rule in self._rules:
                if isinstance(rule.fault, Lines) and rule.match(request):
                    rule.hits += 1
                    return list(rule.fault.change(event))
            return [event]

        return change


async def _after(raw: web.Request, answer: web.Response, fault: Fault) -> web.StreamResponse | None:
    """What becomes of the API server's answer."""
    if isinstance(fault, Drop):
        return None
    if isinstance(fault, Hold) and fault.after:
        await fault.wait()
    if isinstance(fault, Edit) and answer.status == _OK:
        answer.body = json.dumps(fault.change(json.loads(_bytes(answer)))).encode()
    return await _half(raw, answer) if isinstance(fault, Cut) else answer


def _answer(code: int, content: bytes, headers: dict[str, str]) -> web.Response:
    return web.Response(status=code, body=content, headers=headers)


def _kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {key: value for key, value in answer.headers.items() if key.lower() in _KEPT}


def _bytes(answer: web.Response) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


def _reset(raw: web.Request) -> web.StreamResponse:
    if raw.transport is not None:
        raw.transport.abort()
    return web.Response()


async def _half(raw: web.Request, answer: web.Response) -> web.StreamResponse:
    """The first half of a body whose length was promised in full."""
    content = _bytes(answer)
    headers = {**answer.headers, "Content-Length": str(len(content))}
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(raw)
    await response.write(content[: len(content) // 2])
    if raw.transport is not None:
        raw.transport.close()
    return response
