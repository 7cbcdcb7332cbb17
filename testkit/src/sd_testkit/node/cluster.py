# SPDX-License-Identifier: Apache-2.0
"""All of it at once: control plane with CRDs, registry, real node, stand-in for KubeRay and the operator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_testkit.control_plane import ControlPlane
from sd_testkit.kuberay import KubeRay
from sd_testkit.node.node import NODE, Node
from sd_testkit.node.registry import Registry
from sd_testkit.operator_process import OperatorProcess
from sd_testkit.playground import install_crds


@dataclass(frozen=True)
class RealCluster:
    """What runs while `real_cluster` is entered."""

    control_plane: ControlPlane
    registry: Registry
    node: Node
    operator: OperatorProcess


@asynccontextmanager
async def real_cluster(folder: Path, gpus: int) -> AsyncIterator[RealCluster]:
    """Start it in a folder, and end it, the last started first.

    Ray pods on the real node are made from the RayService's templates and run the image named there; in place of
    `ray start` they wait, and what the Ray in them answers is simulated.
    """
    control_plane = ControlPlane(folder / "control-plane")
    with ExitStack() as stack:
        stack.callback(control_plane.stop)
        control_plane.start()
        install_crds(control_plane)
        registry = Registry(folder / "registry")
        stack.callback(registry.stop)
        registry.start()
        node = Node(control_plane, registry, gpus)
        stack.callback(node.stop)
        node.start()
        operator = OperatorProcess(control_plane, folder)
        stack.callback(operator.stop)
        operator.start()
        configuration = Configuration()
        await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
        async with ApiClient(configuration) as api:
            kuberay = asyncio.create_task(KubeRay(api, control_plane.pod_network, frozenset({NODE})).run())
            try:
                yield RealCluster(control_plane, registry, node, operator)
            finally:
                kuberay.cancel()
                await asyncio.gather(kuberay, return_exceptions=True)
