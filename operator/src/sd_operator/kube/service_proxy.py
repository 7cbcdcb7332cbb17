# SPDX-License-Identifier: Apache-2.0
"""Requests to Services through the API server: what answers is a pod of a tenant, so they have connections of their own.

Those of the passes are never taken by pods that do not answer, and no cookie or redirect of a pod reaches them.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Self

import aiohttp
from kubernetes.aio.client import ApiClient

from sd_operator.bounded_http import Answer, Session, connections, request
from sd_operator.kube.kinds import CORE_SERVICE

_SECONDS = 30.0  # of a request that names no other time; each of ours does
_CONNECTIONS = 128


class ServiceProxy:
    """The service proxy of an API server; an async context manager.

    Args:
        api: its client, for address, certificates and the token of each request.
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
            namespace: where it is.
            service: its name, a colon, and the name of its port.
            path: of the request.
            headers: to send.
            seconds: from the start to the last byte.
            most: bytes of a body that are read at most; 0: the status is enough.

        Raises:
            RayTooSlow: there was no whole answer in time.
            RayUnavailable: there was none, or a larger one.
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
