# SPDX-License-Identifier: Apache-2.0
"""Measure whether services with silent dashboards slow the operator's work on others, on the real control plane.

    .venv/bin/python benchmarks/silent_dashboards.py [--silent N] [--edits N]

There is one healthy service and N others, each with a ready head and a ready worker. The operator polls the dashboards
directly, at a server of this script. In the first phase all dashboards answer. In the second phase the N dashboards accept
connections and never answer. In both phases the script edits the healthy service and one of the N four times a second, so
that passes over silent services run all the time.

The script prints JSON for each phase: milliseconds from the edit of the healthy service to the write of its RayService
(p50, p95, p99), the number of polls, and the longest pause between two polls of the healthy service.

KubeRay does not run: this script writes the status that KubeRay would write, once.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from kubernetes.aio import config, watch
from kubernetes.aio.client import ApiClient, Configuration, CustomObjectsApi

from sd_testkit.chart import service_account
from sd_testkit.cluster.api_server import ApiServer, now
from sd_testkit.cluster.control_plane import SIMULATED_NODES, ControlPlane
from sd_testkit.operator_process import outside
from sd_testkit.playground import install_crds

Json = dict[str, Any]

HEALTHY = "healthy"
NAMESPACE = "default"
SPEC = {"model": {"preset": "shapes"}, "replicas": {"min": 1, "max": 1}, "imagePreload": {"mode": "Disabled"}}
PER_SECOND = 4
AT_ONCE = 10
NOTICED_SECONDS = 30
THEIRS = ("ray.io", "v1", NAMESPACE, "rayservices")


@dataclass
class Dashboards:
    """All dashboards, by the name of the RayCluster: each reports the desired state of its RayService, or never answers."""

    silent: bool = False
    configs: dict[str, Json] = field(default_factory=dict)
    polls: Counter[bool] = field(default_factory=Counter)
    last: float = 0.0
    oldest: float = 0.0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as Serve does; a silent dashboard never answers."""
        name = request.match_info["cluster"].removesuffix("-a")
        self.polls[name == HEALTHY] += 1
        if name == HEALTHY:
            self.oldest, self.last = max(self.oldest, time.monotonic() - self.last), time.monotonic()
        elif self.silent:
            await asyncio.sleep(3600)
        application = self.configs[name]["applications"][0]
        replica = {"state": "RUNNING"}
        deployments = {
            each["name"]: {
                "status": "HEALTHY",
                "deployment_config": each,
                "target_num_replicas": 1,
                "replicas": [replica],
            }
            for each in application["deployments"]
        }
        told = {"status": "RUNNING", "deployed_app_config": application, "deployments": deployments}
        return web.json_response({"applications": {"imagine": told}})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Listen; return the port."""
        application = web.Application()
        application.router.add_get("/{cluster}/api/serve/applications/", self.answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


@dataclass(frozen=True)
class Stage:
    """The API server and the dashboards of the benchmark."""

    api: ApiClient
    dashboards: Dashboards

    @property
    def server(self) -> ApiServer:
        """Return the API for any object."""
        return ApiServer(self.api)

    async def edit(self, name: str, steps: int) -> None:
        """Apply a service with another limit."""
        body = {"apiVersion": "sdservice.dev/v1alpha1", "kind": "StableDiffusionService"}
        body |= {
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {**SPEC, "limits": {"maxSteps": steps}},
        }
        await self.server.apply(body)

    async def serve(self, name: str) -> None:
        """Create a service, wait for its RayService, and write the status that KubeRay and the kubelet would write."""
        await self.edit(name, 100)
        live = None
        while live is None:
            live = await self.server.get("RayService", NAMESPACE, name)
            await asyncio.sleep(0.1)
        self.dashboards.configs[name] = yaml.safe_load(live["spec"]["serveConfigV2"])
        labels = {"sdservice.dev/name": name, "ray.io/cluster": f"{name}-a", "ray.io/is-ray-node": "yes"}
        for kind in ("head", "worker"):
            group = "headgroup" if kind == "head" else "gpu"
            metadata = {"name": f"{name}-{kind}", "namespace": NAMESPACE}
            metadata["labels"] = labels | {"ray.io/node-type": kind, "ray.io/group": group}
            container = {"name": "ray", "image": "example.org/ray:1"}
            spec = {
                "nodeName": SIMULATED_NODES[-1],
                "containers": [container],
                "terminationGracePeriodSeconds": 0,
            }
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
            await self.server.create(pod)
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": now()}
            await self.server.merge_status(
                pod, {"phase": "Running", "conditions": [ready], "podIP": "10.0.0.9"}
            )
        serving = {"rayClusterName": f"{name}-a", "applicationStatuses": {"imagine": {"status": "RUNNING"}}}
        status = {"observedGeneration": 9999, "numServeEndpoints": 1, "activeServiceStatus": serving}
        await self.server.merge_status(live, status)

    async def until_ready(self, names: list[str]) -> None:
        """Wait until each service is Ready because Ray reports it."""
        waiting = set(names)
        while waiting:
            for live in await self.server.list_all("StableDiffusionService"):
                told = {each["type"]: each for each in live.get("status", {}).get("conditions", [])}
                if (
                    told
                    and told["Ready"]["status"] == "True"
                    and "Ray runs" in told["ConfigApplied"]["message"]
                ):
                    waiting.discard(live["metadata"]["name"])
            await asyncio.sleep(1)

    async def edits(self, count: int, others: list[str], first: int) -> list[float]:
        """Return the milliseconds from each edit of the healthy service to the write of its RayService."""
        written: dict[int, float] = {}
        task = asyncio.create_task(self._watch(written))
        asked: dict[int, float] = {}
        began = time.monotonic()
        try:
            for number in range(count):
                await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
                steps = first + number
                asked[steps] = time.monotonic()
                await self.edit(HEALTHY, steps)
                await self.edit(others[number % len(others)], steps)
            async with asyncio.timeout(600):
                while not written.keys() >= asked.keys():  # noqa: ASYNC110 - a watch tells
                    await asyncio.sleep(0.1)
        finally:
            task.cancel()
        return [(written[steps] - at) * 1000 for steps, at in asked.items()]

    async def _watch(self, written: dict[int, float]) -> None:
        objects = CustomObjectsApi(self.api)
        async for event in watch.Watch().stream(
            objects.list_namespaced_custom_object,
            *THEIRS,
            field_selector=f"metadata.name={HEALTHY}",
            _request_timeout=3600,
        ):
            text = event["object"]["spec"]["serveConfigV2"]
            self.dashboards.configs[HEALTHY] = yaml.safe_load(text)
            found = re.search(r"max_steps: (\d+)", text)
            latest = int(found[1]) if found else 0
            for steps in range(latest - 20, latest + 1):  # an edit may be overtaken by the next one
                written.setdefault(steps, time.monotonic())


async def measure(
    control_plane: ControlPlane, folder: Path, arguments: argparse.Namespace
) -> dict[str, Json]:
    """Measure both phases in one run."""
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    dashboards = Dashboards()
    account = service_account(control_plane, folder)
    async with ApiClient(configuration) as api, dashboards.serving() as port:
        address = f"http://127.0.0.1:{port}/{{cluster}}"
        environment = outside(control_plane, account) | {
            "SDSERVICE_DASHBOARD_URL": address,
            "SDSERVICE_PROXY_URL": address,
        }
        control_plane.processes.start("operator", [sys.executable, "-m", "sd_operator"], environment)
        stage = Stage(api, dashboards)
        names = [f"silent-{number}" for number in range(arguments.silent)]
        for start in range(0, len(names), AT_ONCE):
            await asyncio.gather(*map(stage.serve, names[start : start + AT_ONCE]))
        await stage.serve(HEALTHY)
        await stage.until_ready([HEALTHY, *names])
        figures = {}
        for phase, first in (("answering", 200), ("silent", 600)):
            dashboards.silent = phase == "silent"
            await asyncio.sleep(NOTICED_SECONDS)
            dashboards.oldest, dashboards.last = 0.0, time.monotonic()
            dashboards.polls.clear()
            began = time.monotonic()
            cuts = statistics.quantiles(await stage.edits(arguments.edits, names, first), n=100)
            figures[phase] = {
                **{f"p{cut} ms": round(cuts[cut - 1], 1) for cut in (50, 95, 99)},
                "seconds": round(time.monotonic() - began, 1),
                "polls of the healthy one": dashboards.polls[True],
                "longest pause between them s": round(dashboards.oldest, 1),
                "polls of the others": dashboards.polls[False],
            }
        control_plane.processes.check("operator")
    return figures


def main() -> None:
    """Start a control plane, measure, print, and end it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--silent", type=int, default=200)
    parser.add_argument("--edits", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        control_plane = ControlPlane(Path(folder) / "control-plane")
        try:
            control_plane.start()
            install_crds(control_plane)
            figures = asyncio.run(measure(control_plane, Path(folder), arguments))
        finally:
            control_plane.stop()
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
