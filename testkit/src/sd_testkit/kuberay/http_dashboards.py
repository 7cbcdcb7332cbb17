# SPDX-License-Identifier: Apache-2.0
"""Ray that runs in pods, as KubeRay dials it: the head's dashboard with its token, and its Serve proxy."""

import base64
from http import HTTPStatus

import aiohttp

from sd_testkit.cluster.api_server import ApiServer
from sd_testkit.json_types import Json
from sd_testkit.kuberay.dashboards import kept
from sd_testkit.kuberay.ray_pods import token_secret

_TIMEOUT = aiohttp.ClientTimeout(total=5)
_PATH = "/api/serve/applications/"
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)


class HttpDashboards:
    """The dashboards at the addresses of head pods.

    Args:
        server: the API server, which has the Secrets with tokens.
        session: the HTTP session for the requests.
    """

    def __init__(self, server: ApiServer, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session

    async def applications(self, cluster: Json) -> dict[str, Json] | None:
        """Return status and message of each application and of its deployments, or None if the dashboard does not answer."""
        try:
            async with self._session.get(_url(cluster), **await self._options(cluster)) as answer:
                answer.raise_for_status()
                details = (await answer.json())["applications"]
        except _FAILURES:
            return None
        return {name: kept(each) for name, each in details.items()}

    async def deploy(self, cluster: Json, config: Json) -> None:
        """PUT a Serve config.

        Raises:
            aiohttp.ClientError: Ray refused the config.
        """
        async with self._session.put(_url(cluster), json=config, **await self._options(cluster)) as answer:
            answer.raise_for_status()

    async def has_healthy_proxy(self, pod: Json) -> bool:
        """Return whether the `/-/healthz` endpoint of a head pod answers."""
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            return False
        try:
            async with self._session.get(f"http://{address}:8000/-/healthz", timeout=_TIMEOUT) as answer:
                return answer.status == HTTPStatus.OK
        except _FAILURES:
            return False

    async def _options(self, cluster: Json) -> Json:
        secret = await self._server.get("Secret", cluster["metadata"]["namespace"], token_secret(cluster))
        token = base64.b64decode((secret or {}).get("data", {}).get("auth_token", "")).decode()
        return {"headers": {"X-Ray-Authorization": f"Bearer {token}"}, "timeout": _TIMEOUT}


def _url(cluster: Json) -> str:
    return f"http://{cluster['status']['head']['podIP']}:8265{_PATH}"
