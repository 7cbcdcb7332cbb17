# SPDX-License-Identifier: Apache-2.0
"""The client of Ray's dashboard: reads and writes Serve's applications, and reads the start reports of replicas.

The REST API: https://docs.ray.io/en/latest/serve/api/index.html#serve-rest-api; KubeRay uses the same PUT.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from sd_operator.bounded_http import Answer, Session, connections, request
from sd_operator.errors import RayUnavailable
from sd_operator.ray.serve_state import ServeState, read

APPLICATIONS = "/api/serve/applications/"
STARTS = "/startz"
_OK = 200


class RayDashboard:
    """The dashboard of one Ray cluster.

    Args:
        session: an HTTP session of `connections`.
        url: address of the dashboard.
        token: Ray's token.
        seconds: deadline of each request.
    """

    def __init__(self, session: Session, url: str, token: str, seconds: float) -> None:
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._seconds = seconds

    async def apply(self, serve_config: dict[str, Any]) -> None:
        """PUT the Serve config.

        Raises:
            RayUnavailable: no answer, or Ray refuses the config; with Ray's message.
        """
        answer = await self._request("PUT", json=serve_config)
        if answer.status != _OK:
            raise RayUnavailable(f"Ray answers {answer.status}: {answer.text}")

    async def application(self) -> ServeState:
        """The state of the service's application.

        Raises:
            RayUnavailable: no answer, or an unreadable one.
        """
        return read(await self.details())

    async def details(self) -> dict[str, Any]:
        """Serve's whole answer (`ServeInstanceDetails`).

        Raises:
            RayUnavailable: no answer, a refusal, or anything else than a JSON object.
        """
        return (await self._request("GET")).object()

    async def _request(self, method: str, **more: Any) -> Answer:
        url = self._url + APPLICATIONS
        return await request(self._session, method, url, headers=self._headers, seconds=self._seconds, **more)


@asynccontextmanager
async def connect(url: str, token: str, timeout_seconds: float = 30) -> AsyncIterator[RayDashboard]:
    """A client of one dashboard that authenticates with Ray's token."""
    async with connections(timeout_seconds) as session:
        yield RayDashboard(session, url, token, timeout_seconds)


async def starts(session: Session, url: str, seconds: float) -> dict[str, Any]:
    """The service's answer about the starts of its replicas, from a Serve proxy.

    Raises:
        RayUnavailable: no answer, no such route, or anything else than a JSON object.
    """
    return (await request(session, "GET", url + STARTS, headers={}, seconds=seconds)).object()


async def get_json(url: str, timeout_seconds: float = 10) -> tuple[int, dict[str, Any]]:
    """Status code and JSON object of a GET to the service itself; (0, {}) if nothing answers yet."""
    async with connections(timeout_seconds) as session:
        try:
            answer = await request(session, "GET", url, headers={}, seconds=timeout_seconds)
        except RayUnavailable:
            return 0, {}
    try:
        return answer.status, Answer(200, answer.body).object()
    except RayUnavailable:
        return answer.status, {}


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
