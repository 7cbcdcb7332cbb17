# SPDX-License-Identifier: Apache-2.0
"""The proxy server. The proxy records each request, applies the first rule that matches, and forwards all other requests."""

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
# These headers belong to one connection only. Compression is removed, so that the proxy can read bodies.
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
    """A server on loopback in front of the API server of a kubeconfig.

    The proxy is an async context manager.

    Args:
        behind: kubeconfig of the API server. The proxy uses its credentials for every request.
        folder: where the proxy writes its own kubeconfig.
        tls: certificate and key of this server, and the authority that signed them. None means plain HTTP.
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
        """Start listening."""
        connector = aiohttp.TCPConnector(limit=0, ssl=self._upstream.context or False)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        )
        application = web.Application(client_max_size=_LARGEST)
        application.router.add_route("*", "/{path:.*}", self._handle)
        # A client that disconnects also ends its request here, such as a blocked request or a watch.
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
        """Stop the server and close every connection."""
        await self._runner.cleanup()
        await self._session.close()

    def add(self, match: Match, fault: Fault, *, first: int = 1, times: int | None = None) -> Rule:
        """Add a rule for a fault. Rules that were added earlier take precedence."""
        rule = Rule(match, fault, first, times)
        self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Remove a rule. Requests that it blocks continue."""
        self._rules.remove(rule)
        if isinstance(rule.fault, Hold):
            rule.fault.released.set()

    @contextmanager
    def rule(self, match: Match, fault: Fault, *, first: int = 1, times: int | None = None) -> Iterator[Rule]:
        """Add a rule for the duration of a block."""
        rule = self.add(match, fault, first=first, times=times)
        try:
            yield rule
        finally:
            self.remove(rule)

    @contextmanager
    def recording(self) -> Iterator[dict[str, bytes]]:
        """Record the responses to reads, for `Replay`."""
        self._answers = {}
        try:
            yield self._answers
        finally:
            self._answers = None

    def streams(self, match: Match) -> list[Stream]:
        """Return the watches that are running."""
        return [each for each in self._streams if match(each.request)]

    async def say(self, match: Match, event: Json) -> int:
        """Insert an event into running watches. Return the number of watches."""
        found = self.streams(match)
        for each in found:
            await each.say(event)
        return len(found)

    async def say_error(self, match: Match, code: int, message: str = "injected") -> int:
        """Insert an ERROR into running watches and end them, as the API server does. Return the number of watches."""
        found = self.streams(match)
        for each in found:
            await each.say({"type": "ERROR", "object": faults.status(code, message)})
            await each.end("eof")
        return len(found)

    async def end(self, match: Match, how: Ending) -> int:
        """End running watches. Return their number."""
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
        """Apply the fault. Return None if the connection must be reset."""
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
        """Forward the request to the API server. Return None if the API server is not reachable."""
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
        """Stream the response as it arrives. The proxy keeps none of it, so the response may be endless."""
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
        """Return the function that changes an event.

        The rules are read for each event, since they can change during a watch.
        """

        def change(event: Json) -> list[Json]:
            for rule in self._rules:
                if isinstance(rule.fault, Lines) and rule.match(request):
                    rule.hits += 1
                    return list(rule.fault.change(event))
            return [event]

        return change


async def _after(raw: web.Request, answer: web.Response, fault: Fault) -> web.StreamResponse | None:
    """Apply the fault to the API server's response."""
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
    """Send the first half of a body whose header states the full length."""
    content = _bytes(answer)
    headers = {**answer.headers, "Content-Length": str(len(content))}
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(raw)
    await response.write(content[: len(content) // 2])
    if raw.transport is not None:
        raw.transport.close()
    return response
