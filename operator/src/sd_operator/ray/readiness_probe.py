# SPDX-License-Identifier: Apache-2.0
"""Asking a service itself whether it would draw: `GET /readyz` of the runtime, for where Ray leaves that open.

The status of the answer says it all, and its body is not read. The runtime needs up to four seconds where Serve's
controller is gone (`sd_runtime.serving.readiness`).
"""

from collections.abc import Awaitable, Callable

from sd_operator import naming
from sd_operator.bounded_http import Answer, Session, request
from sd_operator.errors import RayTooSlow, SdServiceError
from sd_operator.kube import Cluster

_PATH = "/readyz"
_OK = 200

Probe = Callable[[str, str, float], Awaitable[bool]]
"""Whether the service behind a Service would draw; takes the namespace, the name of the Service, and the seconds it has.

No answer is a no. Raises RayTooSlow where the time is over.
"""


def directly(session: Session, address: Callable[[str, str], str] = naming.serve_url) -> Probe:
    """Ask by the address of the Service, from inside the cluster.

    Args:
        session: the HTTP client.
        address: the URL of a Service, from its name and its namespace.
    """

    async def probe(namespace: str, service: str, seconds: float) -> bool:
        url = address(service, namespace) + _PATH
        return await _is_yes(request(session, "GET", url, headers={}, seconds=seconds, most=0))

    return probe


def through_api_server(cluster: Cluster) -> Probe:
    """Ask through the API server's service proxy, from wherever a kubeconfig leads."""

    async def probe(namespace: str, service: str, seconds: float) -> bool:
        return await _is_yes(
            cluster.get_through_service(namespace, f"{service}:serve", _PATH, {}, seconds=seconds, most=0)
        )

    return probe


async def _is_yes(asked: Awaitable[Answer]) -> bool:
    try:
        return (await asked).status == _OK
    except RayTooSlow:
        raise
    except SdServiceError:
        return False
