# SPDX-License-Identifier: Apache-2.0
"""Measure the cost of node changes for the operator while many services run: API server requests and passes.

    .venv/bin/python benchmarks/node_churn.py [--services N] [--nodes N] [--rate PER_SECOND] [--seconds S]

The benchmark starts the real control plane with the stand-in for KubeRay, simulated nodes of ten pools, and running
services. The operator verifies the images of each service on the nodes of one pool (`External`).

In the first phase nodes change `--rate` times a second, for `--seconds`, in ways that concern no service. Other images
appear and disappear in their lists, other labels change, and kubelets send heartbeats. In the second phase the image of
the services disappears from one node, which concerns the services of its pool.

The script prints JSON for each phase: passes, services whose status changed, and requests per second, as the API server
counts them. Polls of Ray through its proxy are counted separately.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration, CoreV1Api
from operator_load import EXAMPLE, MB, OURS, PAGE, Load, Operator, say, until

from sd_operator.settings import Settings
from sd_testkit.chart import service_account
from sd_testkit.cluster.control_plane import ControlPlane, simulated_node
from sd_testkit.playground import install_crds

Json = dict[str, Any]

POOLS = 10
QUIET_SECONDS = 45
STARTING_AT_ONCE = 100
PROXIED = re.compile(r'^apiserver_request_total\{.*subresource="proxy".*\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Count:
    """The passes, requests and polls of Ray of the operator so far."""

    passes: float
    requests: float
    polls: float

    def since(self, before: "Count", seconds: float) -> dict[str, float]:
        """Return the difference from an earlier count, and the rates."""
        return {
            "passes": self.passes - before.passes,
            "requests per second": (self.requests - before.requests) / seconds,
            "polls of Ray per second": (self.polls - before.polls) / seconds,
        }


class Churn:
    """Running services on changing nodes."""

    def __init__(self, load: Load, operator: Operator, nodes: int, image: str) -> None:
        self._load = load
        self._operator = operator
        self._core = CoreV1Api(load.api)
        self._nodes = nodes
        self._image = image

    async def start(self, services: int) -> None:
        """Create nodes and services, and wait until all are ready."""
        for number in range(self._nodes):
            body = simulated_node(f"node-{number}", {"nvidia.com/gpu": "64"}, [])
            body["metadata"]["labels"]["pool"] = str(number % POOLS)  # type: ignore[index]
            await self._core.create_node(body)
            await self._list_images(number)
        for first in range(0, services, STARTING_AT_ONCE):
            numbers = range(first, min(first + STARTING_AT_ONCE, services))
            for number in numbers:
                body = json.loads(json.dumps(self._load.service))
                body["spec"]["workerGroups"] = [
                    {"name": "gpu", "nodeSelector": {"pool": str(number % POOLS)}}
                ]
                body["metadata"] = {"name": f"imagine-{number}"}
                await self._load.objects.create_namespaced_custom_object(*OURS, body=body)
            await until(lambda numbers=numbers: self._serving(numbers.stop), pause=5)
            say(f"{numbers.stop} services serve")

    async def quiet(self) -> None:
        """Wait until no service has had a pass for a while."""
        passes, since = -1.0, time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            now = (await self._count()).passes
            if now != passes:
                passes, since = now, time.monotonic()
            await asyncio.sleep(1)

    async def foreign_changes(self, rate: float, seconds: float) -> dict[str, float]:
        """Change nodes in ways that concern no service."""
        before, statuses = await self._count(), await self._statuses()
        began, number = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            await self._change(random.randrange(self._nodes), number)  # noqa: S311 - any node will do
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        took = time.monotonic() - began
        return {
            "changes per second": number / took,
            **(await self._count()).since(before, took),
            "statuses changed": differing(statuses, await self._statuses()),
        }

    async def loss(self, seconds: float) -> dict[str, float]:
        """Remove the image of the services from one node of the first pool."""
        before, statuses = await self._count(), await self._statuses()
        await self._list_images(0, has_ours=False)
        await asyncio.sleep(seconds)
        return {
            **(await self._count()).since(before, seconds),
            "statuses changed": differing(statuses, await self._statuses()),
        }

    async def _change(self, node: int, number: int) -> None:
        match number % 3:
            case 0:
                await self._list_images(node, f"registry.example.org/other:{number}")
            case 1:
                body = {"metadata": {"labels": {"example.org/seen": str(number)}}}
                await self._core.patch_node(f"node-{node}", body)
            case _:
                alive = {"type": "Ready", "status": "True", "reason": f"Alive{number}"}
                await self._core.patch_node_status(f"node-{node}", {"status": {"conditions": [alive]}})

    async def _list_images(self, node: int, *others: str, has_ours: bool = True) -> None:
        names = [*([self._image] if has_ours else []), "registry.example.org/pause:1", *others]
        body = {"status": {"images": [{"names": [each], "sizeBytes": 1} for each in names]}}
        await self._core.patch_node_status(f"node-{node}", body)

    async def _count(self) -> Count:
        passes = self._operator.metric("sdservice_reconcile_seconds_count")
        text = await self._load.metrics()
        return Count(passes, self._load.requests_in(text), sum(map(float, PROXIED.findall(text))))

    async def _serving(self, services: int) -> bool:
        found = await self._statuses()
        return sum(each.get("Ready") == "Serving" for each in found.values()) >= services

    async def _statuses(self) -> dict[str, dict[str, str]]:
        """Return the reasons of all conditions, by service."""
        found: dict[str, dict[str, str]] = {}
        query: dict[str, Any] = {"limit": PAGE}
        while True:
            page = await self._load.objects.list_namespaced_custom_object(*OURS, **query)
            for each in page["items"]:
                conditions = (each.get("status") or {}).get("conditions", [])
                found[each["metadata"]["name"]] = {
                    condition["type"]: condition["reason"] for condition in conditions
                }
            query["_continue"] = page["metadata"].get("continue")
            if not query["_continue"]:
                return found


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Return how many entries differ."""
    return sum(before.get(name) != each for name, each in after.items())


async def measure(
    control_plane: ControlPlane, operator: Operator, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Measure both phases in one run."""
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    configuration.client_session_kwargs = {"trust_env": False}
    async with ApiClient(configuration) as api:
        service = yaml.safe_load(EXAMPLE.read_text())
        service["spec"]["imagePreload"] = {"mode": "External"}
        settings = Settings()
        image = f"{settings.runtime_repository}:{settings.runtime_tag}"
        load = Load(control_plane, api, service)
        churn = Churn(load, operator, arguments.nodes, image)
        operator.set(SDSERVICE_RESYNC_SECONDS=arguments.resync)
        operator.start()
        await churn.start(arguments.services)
        say("until quiet")
        await churn.quiet()
        say("changes that concern nobody")
        foreign = await churn.foreign_changes(arguments.rate, arguments.seconds)
        say("the image goes from one node")
        lost = await churn.loss(arguments.resync + 60)
        return {
            "services": arguments.services,
            "of them in each pool": arguments.services / POOLS,
            "RSS MB": operator.process.memory_info().rss / MB,
            "changes that concern nobody": foreign,
            "image gone from one node": lost,
        }


def main() -> None:
    """Start a control plane, measure, print, and end it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--resync", type=float, default=Settings().resync_seconds)
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
    print(json.dumps(figures, indent=1, default=lambda value: round(value, 2)))


if __name__ == "__main__":
    main()
