# SPDX-License-Identifier: Apache-2.0
"""How fast and how light the operator is on the real control plane.

    .venv/bin/python benchmarks/operator_load.py [--services N] [--rate PER_SECOND] [--preload MODE]

Creates N services at a steady rate and watches their RayServices appear. Printed as JSON: latency from the creation
of a service to that of its RayService (milliseconds, p50 / p95 / p99), resident memory of the operator idle and with
all services (MB), its CPU share idle, and objects that changed in 20 idle seconds. Neither KubeRay nor the stand-in
runs. With `--preload Opportunistic` each service also has a DaemonSet with a pod on each of the three simulated
nodes, which the other programs of the control plane, on the same cores, have to start.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml
from kubernetes.aio import config, watch
from kubernetes.aio.client import ApiClient, Configuration, CustomObjectsApi

from sd_testkit.control_plane import ControlPlane
from sd_testkit.operator_process import outside
from sd_testkit.playground import install_crds

EXAMPLE = Path(__file__).parent.parent / "examples/quickstart.yaml"
OURS = ("sdservice.dev", "v1alpha1", "default", "stablediffusionservices")
THEIRS = ("ray.io", "v1", "default", "rayservices")
LIMIT_SECONDS = 300


async def measure(control_plane: ControlPlane, services: int, rate: float, preload: str) -> dict[str, float]:
    """Run the load and return the figures."""
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        client = CustomObjectsApi(api)
        operator = psutil.Process(start_operator(control_plane))
        await create(client, "warm-up", preload)
        await until(client, 1)
        await asyncio.sleep(3)
        idle = operator.memory_info().rss
        created: dict[str, float] = {}
        appeared: dict[str, float] = {}
        watching = asyncio.create_task(watch_ray_services(client, appeared))
        for number in range(services):
            name = f"imagine-{number}"
            created[name] = time.monotonic()
            await create(client, name, preload)
            await asyncio.sleep(max(0.0, created[f"imagine-{0}"] + (number + 1) / rate - time.monotonic()))
        await until(client, services + 1)
        await asyncio.sleep(5)
        watching.cancel()
        before = await versions(client)
        cpu = sum(operator.cpu_times()[:2])
        await asyncio.sleep(20)
        after = await versions(client)
        latencies = sorted((appeared[name] - at) * 1000 for name, at in created.items() if name in appeared)
        quantiles = statistics.quantiles(latencies, n=100)
        return {
            "services": services,
            "rate per second": rate,
            "seen": len(latencies),
            "p50 ms": quantiles[49],
            "p95 ms": quantiles[94],
            "p99 ms": quantiles[98],
            "RSS idle MB": idle / 1e6,
            "RSS with all MB": operator.memory_info().rss / 1e6,
            "objects changed in 20 idle s": sum(before[name] != after[name] for name in before),
            "CPU share idle": (sum(operator.cpu_times()[:2]) - cpu) / 20,
        }


def start_operator(control_plane: ControlPlane) -> int:
    """Start the operator as a process of its own; return its id."""
    command = [sys.executable, "-m", "sd_operator"]
    control_plane.processes.start("operator", command, outside(control_plane))
    process = control_plane.processes.running("operator")
    if process is None:
        raise RuntimeError("the operator did not start")
    return process.pid


async def create(client: CustomObjectsApi, name: str, preload: str) -> None:
    """Create the quick start's service under another name."""
    body = yaml.safe_load(EXAMPLE.read_text())
    body["metadata"]["name"] = name
    body["spec"]["imagePreload"] = {"mode": preload}
    await client.create_namespaced_custom_object(*OURS, body=body)


async def watch_ray_services(client: CustomObjectsApi, appeared: dict[str, float]) -> None:
    """Note when each RayService is first seen."""
    async for event in watch.Watch().stream(client.list_namespaced_custom_object, *THEIRS):
        appeared.setdefault(event["object"]["metadata"]["name"], time.monotonic())


async def versions(client: CustomObjectsApi) -> dict[str, str]:
    """Resource versions of all services and RayServices."""
    found = {}
    for place in (OURS, THEIRS):
        for item in (await client.list_namespaced_custom_object(*place))["items"]:
            found[f"{place[3]}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    return found


async def until(client: CustomObjectsApi, count: int) -> None:
    """Wait until there are so many RayServices."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while len((await client.list_namespaced_custom_object(*THEIRS))["items"]) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.5)


def main() -> None:
    """Start a control plane, measure, print, and end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--preload", choices=("Disabled", "Opportunistic"), default="Disabled")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        control_plane = ControlPlane(Path(folder) / "control-plane")
        try:
            control_plane.start()
            install_crds(control_plane)
            figures = asyncio.run(
                measure(control_plane, arguments.services, arguments.rate, arguments.preload)
            )
        finally:
            control_plane.processes.stop()
        print(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
