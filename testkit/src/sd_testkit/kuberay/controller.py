# SPDX-License-Identifier: Apache-2.0
"""The control loop: list all objects a few times a second, and reconcile each RayService and RayCluster once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network
from pathlib import Path

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException

from sd_testkit.cluster.api_server import ApiServer
from sd_testkit.cluster.snapshot import Snapshot, look
from sd_testkit.json_types import Json
from sd_testkit.kuberay.autoscaler_rights import autoscaler_rights
from sd_testkit.kuberay.dashboards import SimulatedDashboards
from sd_testkit.kuberay.http_dashboards import HttpDashboards
from sd_testkit.kuberay.ray_clusters import RayClusters
from sd_testkit.kuberay.ray_pods import ray_pod
from sd_testkit.kuberay.ray_services import RayServices
from sd_testkit.ray import Ray
from sd_testkit.ray.network import Network

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.3
_FAILURES = (ApiException, aiohttp.ClientError, TimeoutError, OSError)


class KubeRay:
    """KubeRay with simulated Ray clusters.

    Both run until they are cancelled.

    Args:
        api: a client that may do everything.
        socket: the socket through which the API server dials pods (`ControlPlane.pod_network`).
        real_nodes: names of nodes whose kubelet is not simulated.
    """

    def __init__(self, api: ApiClient, socket: Path, real_nodes: frozenset[str] = frozenset()) -> None:
        self._server = ApiServer(api)
        self._ray = Ray(self._server, socket, real_nodes)

    async def run(self) -> None:
        """Run until cancelled. A failed round is repeated."""
        services = RayServices(self._server, SimulatedDashboards(self._ray))
        await self._ray.network.open()
        try:
            await _for_ever(self._server, services, RayClusters(self._server), self._ray.step)
        finally:
            await self._ray.network.close()


class KubeRayOfPods:
    """KubeRay alone, until it is cancelled.

    Ray runs in the pods, and their nodes are real.

    Args:
        api: a client that may do everything.
        socket: the socket through which the API server dials nodes and pods (`ControlPlane.pod_network`).
        routed: addresses of the nodes and pods.
    """

    def __init__(self, api: ApiClient, socket: Path, routed: IPv4Network) -> None:
        self._server = ApiServer(api)
        self._network = Network(socket, routed)

    async def run(self) -> None:
        """Run until cancelled. A failed round is repeated."""
        clusters = RayClusters(self._server, ray_pod, autoscaler_rights)
        await self._network.open()
        try:
            async with aiohttp.ClientSession() as session:
                services = RayServices(self._server, HttpDashboards(self._server, session))
                await _for_ever(self._server, services, clusters, _nothing)
        finally:
            await self._network.close()


async def _for_ever(
    server: ApiServer,
    services: RayServices,
    clusters: RayClusters,
    then: Callable[[Snapshot], Awaitable[None]],
) -> None:
    while True:
        try:
            seen = await look(server)
            for each in seen.ray_services:
                await _try(each, services.reconcile(each, seen))
            for each in seen.ray_clusters:
                await _try(each, clusters.reconcile(each, seen))
            await then(seen)
        except _FAILURES as error:
            logger.warning("round failed: %s", _words(error))
        except Exception:
            # The library's discovery raises KeyError if several callers request the same unknown kind at once. A
            # controller that has ended would leave every test waiting.
            logger.exception("round failed")
        await asyncio.sleep(_POLL_SECONDS)


async def _nothing(_: Snapshot) -> None:
    """Do nothing: real nodes need no simulation step."""


async def _try(live: Json, work: Awaitable[None]) -> None:
    """Run one pass. A pass that fails, such as in a namespace that is being deleted, does not stop the others."""
    try:
        await work
    except ApiException as error:
        metadata = live["metadata"]
        logger.warning("%s/%s: %s", metadata["namespace"], metadata["name"], _words(error))


def _words(error: Exception) -> str:
    text = str(getattr(error, "body", "") or error or type(error).__name__)
    return " ".join(text.split())[:300]
