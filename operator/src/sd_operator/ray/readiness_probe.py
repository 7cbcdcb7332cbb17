# SPDX-License-Identifier: Apache-2.0
"""Probes a service by `GET /readyz` of the runtime, for cases in which Ray does not show whether it can generate.

Only the status code of the answer counts; its body is not read. The runtime needs up to four seconds if Serve's controller
is gone (`sd_runtime.serving.readiness`).
"""

from collections.abc import Awaitable, Callable

from sd_operator import naming
from sd_operator.bounded_http import Answer, Session, request
from sd_operator.errors import RayTooSlow, SdServiceError
from sd_operator.kube import Cluster

_PATH = "/readyz"
_OK = 200

Probe = Callable[[str, str, float], Awaitable[bool]]
"""Whether the service behind a Service can generate; takes its namespace and name, and the deadline in seconds.

No answer counts as no. It raises RayTooSlow at the deadline.
"""


def directly(session: Session, address: Callable[[str, str], str] = naming.serve_url) -> Probe:
    """Probe by the address of the Service, from inside the cluster.

    Args:
        session: the HTTP client.
        address: the URL of a Service, from its name and its namespace.
    """

    async def probe(namespace: str, service: str, seconds: float) -> bool:
        url = address(service, namespace) + _PATH
        return await _is_yes(request(session, "GET", url, headers={}, seconds=seconds, most=0))

    return probe


def through_api_server(cluster: Cluster) -> Probe:
    """Probe through the API server's service proxy, which works outside the cluster too."""

    async def probe(namespace: str, service: str, seconds: float) -> bool:
        return await _is_yes(
            cluster.get_through_service(namespace, f"{service}:serve", _PATH, {}, seconds=seconds, most=0)
        )

    return probe


async def _is_yes(answer: Awaitable[Answer]) -> bool:
    try:
        return (await answer).status == _OK
    except RayTooSlow:
        raise
    except SdServiceError:
        return False
