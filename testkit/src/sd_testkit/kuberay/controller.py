# SPDX-License-Identifier: Apache-2.0
"""The loop: look at everything a few times a second, and bring each RayService and RayCluster one pass forward."""

import asyncio
import logging
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException

from sd_testkit.api_server import ApiServer
from sd_testkit.kuberay.dashboards import SimulatedDashboards
from sd_testkit.kuberay.ray_clusters import RayClusters
from sd_testkit.kuberay.ray_services import RayServices
from sd_testkit.ray import Ray
from sd_testkit.snapshot import look

Json = dict[str, Any]

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.3
_FAILURES = (ApiException, aiohttp.ClientError, TimeoutError, OSError)


class KubeRay:
    """KubeRay and the Ray clusters it makes, until cancelled.

    Args:
        api: a client that may do everything.
        socket: where the API server dials pods (`ControlPlane.pod_network`).
        real_nodes: names of nodes whose kubelet is not simulated.
    """

    def __init__(self, api: ApiClient, socket: Path, real_nodes: frozenset[str] = frozenset()) -> None:
        self._server = ApiServer(api)
        self._ray = Ray(self._server, socket, real_nodes)
        self._services = RayServices(self._server, SimulatedDashboards(self._ray))
        self._clusters = RayClusters(self._server)

    async def run(self) -> None:
        """Work for ever; a failed round is repeated."""
        await self._ray.network.open()
        try:
            while True:
                try:
                    await self._round()
                except _FAILURES as error:
                    logger.warning("round failed: %s", _words(error))
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            await self._ray.network.close()

    async def _round(self) -> None:
        seen = await look(self._server)
        for each in seen.ray_services:
            await self._try(each, self._services.reconcile(each, seen))
        for each in seen.ray_clusters:
            await self._try(each, self._clusters.reconcile(each, seen))
        await self._ray.step(seen)

    async def _try(self, live: Json, work: Awaitable[None]) -> None:
        """One that fails, such as in a namespace that is being deleted, does not stop the others."""
        try:
            await work
        except ApiException as error:
            metadata = live["metadata"]
            logger.warning("%s/%s: %s", metadata["namespace"], metadata["name"], _words(error))


def _words(error: Exception) -> str:
    text = str(getattr(error, "body", "") or error or type(error).__name__)
    return " ".join(text.split())[:300]
