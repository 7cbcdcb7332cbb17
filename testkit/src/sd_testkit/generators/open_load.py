# SPDX-License-Identifier: Apache-2.0
"""An open-loop load: requests arrive independently of earlier responses. Each request's outcome is recorded."""

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
    """The outcome of one request.

    Attributes:
        sent: monotonic seconds of the start.
        seconds: duration until the end.
        status: HTTP status; 0 without an answer.
        request_id: `x-request-id` of the response.
        retry_after: `Retry-After` of the response.
        words: the end of the response body, if it is not an image.
    """

    sent: float
    seconds: float
    status: int = 0
    request_id: str = ""
    retry_after: str = ""
    words: str = ""

    @property
    def outcome(self) -> str:
        """Return `answered`, `retryable` (an error that says so and has an id), `refused` (no connection) or else `lost`."""
        if self.status == _OK:
            return "answered"
        if self.status in _LATER and self.request_id:
            return "retryable"
        return "refused" if self.words.startswith("ClientConnectorError") else "lost"


def shares(answers: Sequence[Answer]) -> dict[str, int]:
    """Return the number of requests by outcome."""
    return dict(Counter(each.outcome for each in answers))


@dataclass
class Traffic:
    """The state of a load so far.

    Attributes:
        sent: number of requests, with or without a response.
        answers: outcomes of the requests that have ended, in that order.
    """

    sent: int = 0
    answers: list[Answer] = field(default_factory=list)

    @property
    def under_way(self) -> int:
        """Return the number of requests that have no response yet."""
        return self.sent - len(self.answers)


@dataclass(frozen=True)
class Load:
    """An open-loop load.

    The gaps between requests follow an exponential distribution.

    Attributes:
        url: target of the GET requests.
        query: query parameters. Each request adds a seed of its own.
        per_second: average number of requests per second.
        most: maximum number of requests; the load then stops.
    """

    url: str
    query: Mapping[str, str]
    per_second: float
    most: int = 400

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Traffic]:
        """Send requests while the block runs. At the end of the block, wait for all responses."""
        traffic = Traffic()
        connector = aiohttp.TCPConnector(force_close=True, limit=0)  # Each request acts as a separate client.
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
