# SPDX-License-Identifier: Apache-2.0
"""Requests that come whenever they do, whether those before are answered or not, and what became of each."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

_OK = 200
_LATER = {429, 503, 504}
_GIVE_UP_SECONDS = 600.0


@dataclass(frozen=True)
class Answer:
    """What became of one request.

    Attributes:
        sent: monotonic seconds.
        seconds: until its end.
        status: HTTP status; 0 without an answer.
        request_id: `x-request-id` of the answer.
        retry_after: `Retry-After` of the answer.
        words: the end of it, where it is no picture.
    """

    sent: float
    seconds: float
    status: int = 0
    request_id: str = ""
    retry_after: str = ""
    words: str = ""

    @property
    def outcome(self) -> str:
        """`answered`; `retryable`: an error that says so and has an id; `refused`: no connection; else `lost`."""
        if self.status == _OK:
            return "answered"
        if self.status in _LATER and self.request_id:
            return "retryable"
        return "refused" if self.words.startswith("ClientConnectorError") else "lost"


def shares(answers: Sequence[Answer]) -> dict[str, int]:
    """How many had which outcome."""
    return dict(Counter(each.outcome for each in answers))


@dataclass
class Traffic:
    """What a load has come to so far.

    Attributes:
        sent: requests, answered or not.
        answers: what became of those that have ended, in that order.
    """

    sent: int = 0
    answers: list[Answer] = field(default_factory=list)

    @property
    def under_way(self) -> int:
        """Requests that nobody has answered yet."""
        return self.sent - len(self.answers)


@dataclass(frozen=True)
class Load:
    """An open-loop load: gaps between requests are drawn from an exponential distribution.

    Attributes:
        url: what is asked, by GET.
        query: its parameters; each request has a seed of its own beside them.
        per_second: requests on average.
        most: so many at most, then it is silent.
    """

    url: str
    query: Mapping[str, str]
    per_second: float
    most: int = 400

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Traffic]:
        """Send while the block runs; at its end all are answered."""
        traffic = Traffic()
        connector = aiohttp.TCPConnector(force_close=True, limit=0)  # each is another client
        timeout = aiohttp.ClientTimeout(total=_GIVE_UP_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as sent,
        ):
            sender = sent.create_task(self._send(session, sent, traffic))
            try:
                yield traffic
            finally:
                sender.cancel()

    async def _send(self, session: aiohttp.ClientSession, sent: asyncio.TaskGroup, traffic: Traffic) -> None:
        gaps = random.Random(0)  # noqa: S311 - the same load each time
        for seed in range(self.most):
            sent.create_task(self._ask(session, seed, traffic))
            await asyncio.sleep(gaps.expovariate(self.per_second))

    async def _ask(self, session: aiohttp.ClientSession, seed: int, traffic: Traffic) -> None:
        traffic.sent += 1
        began = time.monotonic()
        try:
            async with session.get(self.url, params={**self.query, "seed": str(seed)}) as answer:
                body = await answer.read()
                found = Answer(
                    began,
                    time.monotonic() - began,
                    answer.status,
                    answer.headers.get("x-request-id", ""),
                    answer.headers.get("retry-after", ""),
                    "" if answer.status == _OK else body.decode(errors="replace")[-200:],
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            found = Answer(began, time.monotonic() - began, words=f"{type(error).__name__}: {error}")
        traffic.answers.append(found)
