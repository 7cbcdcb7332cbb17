# SPDX-License-Identifier: Apache-2.0
"""Asking a service itself whether it would draw: `GET /readyz` of the runtime, for where Ray leaves that open.

No answer is an answer here: who does not say yes within five seconds does not serve. The runtime needs up to four of
them where Serve's controller is gone (`sd_runtime.readiness`).
"""

import asyncio
from collections.abc import Awaitable, Callable

from sd_operator import naming
from sd_operator.cluster import Cluster
from sd_operator.errors import SdServiceError
from sd_operator.ray_dashboard import get_json

_PATH = "/readyz"
_SECONDS = 5.0
_OK = 200

Probe = Callable[[str, str], Awaitable[bool]]
"""Whether the service behind a Service would draw; takes the namespace and the name of the Service."""


def directly(address: Callable[[str, str], str] = naming.serve_url) -> Probe:
    """Ask by the address of the Service, from inside the cluster.

    Args:
        address: the URL of a Service, from its name and its namespace.
    """

    async def probe(namespace: str, service: str) -> bool:
        code, _ = await get_json(address(service, namespace) + _PATH, _SECONDS)
        return code == _OK

    return probe


def through_api_server(cluster: Cluster) -> Probe:
    """Ask through the API server's service proxy, from wherever a kubeconfig leads."""

    async def probe(namespace: str, service: str) -> bool:
        try:
            async with asyncio.timeout(_SECONDS):
                await cluster.get_through_service(namespace, f"{service}:serve", _PATH, {})
        except (SdServiceError, TimeoutError):
            return False
        return True

    return probe
