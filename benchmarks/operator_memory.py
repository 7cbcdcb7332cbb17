# SPDX-License-Identifier: Apache-2.0
"""Measure the memory of the operator in a large cluster of foreign pods and of nodes that list many images.

    .venv/bin/python benchmarks/operator_memory.py [--pods N] [--nodes N] [--images N] [--services N]

The benchmark starts the real control plane with the stand-in for KubeRay, and creates the pods and nodes as plain objects.
Then it creates the services. For every second service the operator verifies the images on the nodes (`External`), so the
operator reads nodes.

The script prints JSON: the highest resident memory of each phase in MB, sampled ten times a second. The phases are: at
rest; a resync, in which every service has a pass and the nodes are read again (every 20 s here); and an upgrade of the
first service to a cluster that finds no GPUs, which never ends. The script also prints the seconds that one reading of
all nodes takes.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration, CoreV1Api
from operator_load import EXAMPLE, MB, OURS, Load, Operator, say, until

from sd_operator.kube import NODE, Cluster
from sd_operator.observe.nodes import read_node
from sd_testkit.chart import service_account
from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.playground import install_crds

Json = dict[str, Any]

NAMES = 5
PHASE_SECONDS = 60
FULL_RESYNC_SECONDS = 20
AT_ONCE = 16


def node(number: int, images: int) -> Json:
    """Return a ready node that lists its own images, as a kubelet does: a digest and four tags each."""
    amounts = {"cpu": "64", "memory": "256Gi", "pods": "250", "nvidia.com/gpu": "8"}
    labels = {f"example.org/label-{each}": f"value-{number}-{each}" for each in range(20)}
    listed = []
    for image in range(images):
        name = f"registry.example.org/team-{number}/some-application-{image}"
        digest = f"{name}@sha256:{number:032x}{image:032x}"
        tags = [f"{name}:release-2026-{tag:02}" for tag in range(NAMES - 1)]
        listed.append({"names": [digest, *tags], "sizeBytes": 123456789})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"node-{number}", "labels": {"pool": "other", **labels}},
        "status": {
            "allocatable": amounts,
            "capacity": amounts,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "images": listed,
        },
    }


def pod(number: int, nodes: int) -> Json:
    """Return a foreign pod of usual content, about 4 kB, on one of the nodes."""
    variables = [{"name": f"VARIABLE_{each}", "value": "v" * 60} for each in range(30)]
    container = {"name": "main", "image": "registry.example.org/team/application:1", "env": variables}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"foreign-{number}", "namespace": "default", "labels": {"app": "foreign"}},
        "spec": {
            "nodeName": f"node-{number % nodes}",
            "containers": [{**container, "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
        },
    }


async def all_of(create: Callable[[Json], Awaitable[Any]], bodies: Iterable[Json]) -> None:
    """Create objects in groups."""
    left = iter(bodies)

    async def work() -> None:
        for body in left:
            await create(body)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def highest(operator: Operator, seconds: float) -> float:
    """Return the highest resident memory in a number of seconds, in MB."""
    found, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        found = max(found, operator.process.memory_info().rss / MB)
        await asyncio.sleep(0.1)
    return found


async def reading_nodes(api: ApiClient) -> float:
    """Return the seconds that one reading of all nodes takes."""
    began, count = time.monotonic(), 0
    async for page in Cluster(api, 60).pages(NODE, None):
        count += len(list(map(read_node, page)))
    return time.monotonic() - began


async def measure(
    control_plane: ControlPlane, operator: Operator, arguments: argparse.Namespace
) -> dict[str, float]:
    """Measure all phases in one run."""
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    configuration.client_session_kwargs = {"trust_env": False}
    async with ApiClient(configuration) as api:
        core = CoreV1Api(api)
        say("creating nodes and pods")
        await all_of(core.create_node, (node(each, arguments.images) for each in range(arguments.nodes)))
        await all_of(
            lambda body: core.create_namespaced_pod("default", body),
            (pod(each, arguments.nodes) for each in range(arguments.pods)),
        )
        service = yaml.safe_load(EXAMPLE.read_text())
        load = Load(control_plane, api, service)
        operator.start()
        say("creating services")
        for number in range(arguments.services):
            service["spec"]["imagePreload"] = {"mode": "External" if number % 2 else "Disabled"}
            await load.create(f"imagine-{number}")
        await until(lambda: serving(load, arguments.services))
        say("at rest")
        figures = {"at rest": await highest(operator, PHASE_SECONDS)}
        operator.stop()
        operator.set(
            SDSERVICE_FULL_RESYNC_SECONDS=FULL_RESYNC_SECONDS, SDSERVICE_RESYNC_SECONDS=FULL_RESYNC_SECONDS
        )
        operator.start()
        say("full resyncs")
        figures["start and full resyncs"] = await highest(operator, PHASE_SECONDS)
        larger = {"spec": {"workerGroups": [{"name": "gpu", "gpusPerWorker": 16}]}}
        await load.objects.patch_namespaced_custom_object(*OURS, "imagine-0", larger)
        await until(lambda: short_of_gpus(load))
        say("upgrade")
        figures["upgrade"] = await highest(operator, PHASE_SECONDS)
        return {**figures, "reading all nodes s": await reading_nodes(api)}


async def serving(load: Load, services: int) -> bool:
    """Whether the given number of services is ready."""
    found = (await load.objects.list_namespaced_custom_object(*OURS))["items"]
    return sum(reason(each, "Ready") == "Serving" for each in found) >= services


async def short_of_gpus(load: Load) -> bool:
    """Whether the upgrade reports that it finds no GPUs."""
    found = await load.objects.get_namespaced_custom_object(*OURS, "imagine-0")
    return reason(found, "Upgrading") == "ShortOfGpus"


def reason(service: Json, condition: str) -> str:
    """Return the reason of a condition; empty while the condition is not set."""
    conditions = (service.get("status") or {}).get("conditions", [])
    return next((each["reason"] for each in conditions if each["type"] == condition), "")


def main() -> None:
    """Start a control plane, measure, print, and end it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=2_000)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--services", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        control_plane = ControlPlane(Path(folder) / "control-plane")
        try:
            control_plane.start()
            install_crds(control_plane)
            kuberay = [sys.executable, "-m", "sd_testkit", "kuberay", str(control_plane.pod_network)]
            control_plane.processes.start("kuberay", kuberay, {"KUBECONFIG": str(control_plane.kubeconfig)})
            account = service_account(control_plane, Path(folder), ray={"throughApiServer": True})
            operator = Operator(control_plane, account, "-m", "sd_operator")
            figures = asyncio.run(measure(control_plane, operator, arguments))
        finally:
            control_plane.processes.stop()
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
