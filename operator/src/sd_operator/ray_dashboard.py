# SPDX-License-Identifier: Apache-2.0
"""What only Serve knows: its applications, read and written through the dashboard's REST API; and how replicas start.

https://docs.ray.io/en/latest/serve/api/index.html#serve-rest-api; KubeRay uses the same PUT.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from sd_operator.errors import RayUnavailable
from sd_operator.serve_state import ServeState, read

APPLICATIONS = "/api/serve/applications/"
STARTS = "/startz"
Session = aiohttp.ClientSession
_OK = 200


class RayDashboard:
    """The dashboard of one Ray cluster."""

    def __init__(self, session: Session, url: str, token: str) -> None:
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def apply(self, serve_config: dict[str, Any]) -> None:
        """PUT the Serve config.

        Raises:
            RayUnavailable: no answer, or Ray refuses the config; with Ray's words.
        """
        await self._request("PUT", serve_config)

    async def application(self) -> ServeState:
        """The state of our application."""
        return read(await self.details())

    async def details(self) -> dict[str, Any]:
        """Serve's whole answer (`ServeInstanceDetails`).

        Raises:
            RayUnavailable: no answer, or a refusal.
        """
        return await self._request("GET")

    async def _request(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return await _json(self._session, method, self._url + APPLICATIONS, json=body, headers=self._headers)


async def _json(session: Session, method: str, url: str, **sent: Any) -> dict[str, Any]:
    try:
        async with session.request(method, url, **sent) as response:
            if response.status != _OK:
                raise RayUnavailable(f"Ray answers {response.status}: {await response.text()}")
            text = await response.text()
            answer: dict[str, Any] = await response.json() if text.startswith("{") else {}
            return answer
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RayUnavailable(f"no answer from Ray: {error or type(error).__name__}") from error


@asynccontextmanager
async def connect(url: str, token: str, timeout_seconds: float = 30) -> AsyncIterator[RayDashboard]:
    """A client of one dashboard that proves itself by Ray's token."""
    async with connections(timeout_seconds) as session:
        yield RayDashboard(session, url, token)


@asynccontextmanager
async def connections(timeout_seconds: float) -> AsyncIterator[Session]:
    """Connections to any number of dashboards, with a deadline on each request."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_seconds)) as session:
        yield session


async def starts(session: Session, url: str) -> dict[str, Any]:
    """What the service answers about the starts of its replicas, asked at a proxy.

    Raises:
        RayUnavailable: no answer, or no such route.
    """
    return await _json(session, "GET", url + STARTS)


async def get_json(url: str, timeout_seconds: float = 10) -> tuple[int, dict[str, Any]]:
    """Status code and JSON body of a GET to the service itself; (0, {}) where nothing answers yet."""
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            body = await response.json() if response.content_type == "application/json" else {}
            return response.status, body
    except (aiohttp.ClientError, TimeoutError):
        return 0, {}


async def get_bytes(url: str, query: dict[str, str], timeout_seconds: float) -> tuple[int, bytes]:
    """Status code and body of a GET to the service itself.

    Raises:
        RayUnavailable: no answer.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, params=query) as response,
        ):
            return response.status, await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RayUnavailable(f"no answer from the service: {error or type(error).__name__}") from error
