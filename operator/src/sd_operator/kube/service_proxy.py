# SPDX-License-Identifier: Apache-2.0
"""Requests to Services through the API server's proxy, on separate connections, because pods of tenants answer them.

A pod that does not answer can therefore never use up the connections of the passes. No cookie or redirect of a pod reaches
those connections.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Self

import aiohttp
from kubernetes.aio.client import ApiClient

from sd_operator.bounded_http import Answer, Session, connections, request
from sd_operator.kube.kinds import CORE_SERVICE

_SECONDS = 30.0  # default deadline; every request of the operator sets its own
_CONNECTIONS = 128


class ServiceProxy:
    """The service proxy of an API server; an async context manager.

    Args:
        api: the client of the API server, for address, certificates and the token of each request.
    """

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._ended = AsyncExitStack()
        self._session: Session | None = None

    async def __aenter__(self) -> Self:
        """Connect with the first request."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._ended.aclose()

    async def get(
        self,
        namespace: str,
        service: str,
        path: str,
        headers: Mapping[str, str],
        *,
        seconds: float,
        most: int,
    ) -> Answer:
        """GET from a Service.

        Args:
            namespace: namespace of the Service.
            service: its name, a colon, and the name of its port.
            path: path of the request.
            headers: additional headers.
            seconds: deadline, from the start to the last byte.
            most: maximum of bytes of the body; 0: the body is not read.

        Raises:
            RayTooSlow: the answer was not complete in time.
            RayUnavailable: there was no answer, or it was too large.
        """
        session, configuration = await self._connected(), self._api.configuration
        proxied = f"{CORE_SERVICE.path(namespace, service, 'proxy')}{path}"
        sent = {"Accept": "application/json", **headers}
        method, url, all_headers, *_ = await self._api.param_serialize(
            "GET", proxied, header_params=sent, auth_settings=["BearerToken"]
        )
        more = {"proxy": configuration.proxy} if configuration.proxy else {}
        if configuration.tls_server_name:
            more["server_hostname"] = configuration.tls_server_name
        return await request(session, method, url, headers=all_headers, seconds=seconds, most=most, **more)

    async def _connected(self) -> Session:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._api.rest_client.ssl_context, limit=_CONNECTIONS)
            self._session = await self._ended.enter_async_context(connections(_SECONDS, connector))
        return self._session
