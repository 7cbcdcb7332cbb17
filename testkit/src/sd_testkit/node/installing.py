# SPDX-License-Identifier: Apache-2.0
"""The project's own images on the real node, and the chart installed with them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from sd_testkit.chart import CHART, helm
from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.images import IMAGES, Store, build
from sd_testkit.node.cluster import RealNode, cluster_for_installing
from sd_testkit.node.kuberay import GivenKubeRay
from sd_testkit.programs import cache

SYSTEM = "sdservice-system"
RELEASE = "sdservice"
OPERATOR = "deployment/sdservice-stable-diffusion-operator"
_VALUES = {
    "image": {"repository": "registry.test/operator", "tag": "dev"},
    "runtime": {"repository": "registry.test/worker", "tag": "dev"},
}


@asynccontextmanager
async def cluster_with_images(folder: Path, kuberay: GivenKubeRay | None = None) -> AsyncIterator[RealNode]:
    """Start a cluster without the operator, and load the project's images on its node (`cluster_for_installing`)."""
    store = Store(cache() / "images")
    for image in IMAGES:
        await asyncio.to_thread(build, store, image)
    async with cluster_for_installing(folder, kuberay) as running:
        for image in IMAGES:
            archive = folder / "image.tar"
            await asyncio.to_thread(store.save, image.reference, archive, f"registry.test/{image.name}:dev")
            await asyncio.to_thread(running.node.containerd.import_image, archive)
            archive.unlink()
        yield running


async def install_chart(control_plane: ControlPlane) -> None:
    """Install the chart into a namespace that refuses pods that are not restricted.

    Raises:
        RuntimeError: helm failed; the message has its output.
    """
    control_plane.kubectl("create", "namespace", SYSTEM)
    control_plane.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
    where = ("--namespace", SYSTEM, "--wait", "--timeout", "4m", "--values", "-")
    # This runs in a thread: KubeRay and the tunnel from the API server to nodes use the event loop of this thread.
    await asyncio.to_thread(
        helm,
        "install",
        RELEASE,
        CHART,
        *where,
        kubeconfig=control_plane.kubeconfig,
        stdin=yaml.safe_dump(_VALUES),
    )
