# SPDX-License-Identifier: Apache-2.0
"""A complete cluster: control plane, registry, real node, and KubeRay or its stand-in, with Ray simulated or real."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_testkit.cluster.control_plane import SIMULATED_NODES, ControlPlane
from sd_testkit.kuberay import KubeRay, KubeRayOfPods
from sd_testkit.node.containerd import SUBNET
from sd_testkit.node.kuberay import GivenKubeRay
from sd_testkit.node.node import ADDRESS, NODE, Node
from sd_testkit.node.registry import Registry
from sd_testkit.operator_process import OperatorProcess
from sd_testkit.playground import install_crds, install_kuberay_crds
from sd_testkit.ray.network import Network

_PODS = IPv4Network(SUBNET)


@dataclass(frozen=True)
class RealNode:
    """A control plane with a real node and its registry."""

    control_plane: ControlPlane
    registry: Registry
    node: Node


@dataclass(frozen=True)
class RealCluster(RealNode):
    """The parts that run inside a `real_cluster` block."""

    operator: OperatorProcess


@asynccontextmanager
async def real_cluster(folder: Path, gpus: int) -> AsyncIterator[RealCluster]:
    """Start a cluster in a folder, with the operator beside it.

    Stop all parts in reverse order.

    Ray pods on the real node are built from the RayService's templates and run the image named there. Their
    containers wait in place of `ray start`, and the responses of Ray are simulated.
    """
    with _real_node(folder, gpus) as real:
        install_crds(real.control_plane)
        operator = OperatorProcess(real.control_plane, folder)
        operator.start()
        try:
            async with _client(real.control_plane) as api:
                kuberay = KubeRay(api, real.control_plane.pod_network, frozenset({NODE}))
                async with _running(kuberay.run()):
                    yield RealCluster(real.control_plane, real.registry, real.node, operator)
        finally:
            operator.stop()


@asynccontextmanager
async def cluster_for_installing(
    folder: Path, kuberay: GivenKubeRay | None = None
) -> AsyncIterator[RealNode]:
    """Start a cluster in a folder, with KubeRay and without the operator.

    Stop all parts in reverse order.

    The real node is the only node. Ray runs in pods as KubeRay creates them.

    Args:
        folder: folder for all files.
        kuberay: a real KubeRay; None: the stand-in for KubeRay.
    """
    with _real_node(folder, gpus=0) as real:
        real.control_plane.kubectl("delete", "node", *SIMULATED_NODES)
        running = _with_stand_in(real) if kuberay is None else _with_kuberay(real, kuberay, folder)
        async with running:
            yield real


@asynccontextmanager
async def _with_stand_in(real: RealNode) -> AsyncIterator[None]:
    install_kuberay_crds(real.control_plane)
    async with _client(real.control_plane) as api:
        kuberay = KubeRayOfPods(api, real.control_plane.pod_network, _PODS)
        async with _running(kuberay.run()):
            yield


@asynccontextmanager
async def _with_kuberay(real: RealNode, kuberay: GivenKubeRay, folder: Path) -> AsyncIterator[None]:
    network = Network(real.control_plane.pod_network, _PODS)
    await network.open()
    try:
        # This runs in a thread: the tunnel from the API server to pods uses the event loop of this thread.
        await asyncio.to_thread(kuberay.install, real.control_plane, real.registry, folder)
        yield
    finally:
        await network.close()


@contextmanager
def _real_node(folder: Path, gpus: int) -> Iterator[RealNode]:
    control_plane = ControlPlane(folder / "control-plane", advertised=ADDRESS)
    registry = Registry(folder / "registry")
    try:
        control_plane.start()
        registry.start()
        node = Node(control_plane, registry, gpus)
        try:
            node.start()
            yield RealNode(control_plane, registry, node)
        finally:
            node.stop()
    finally:
        registry.stop()
        control_plane.stop()


@asynccontextmanager
async def _client(control_plane: ControlPlane) -> AsyncIterator[ApiClient]:
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        yield api


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        (end,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(end, Exception):
            raise RuntimeError("the stand-in for KubeRay has ended unexpectedly") from end  # noqa: TRY004 - nobody gave us a wrong type
