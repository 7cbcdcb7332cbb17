# SPDX-License-Identifier: Apache-2.0
"""Measure the speed and the resource use of the operator on the real control plane, with a bare one for comparison.

    .venv/bin/python benchmarks/operator_load.py [--services N] [--rate PER_SECOND] [--preload MODE] [--churn N] [--bare]

The benchmark creates N services at a steady rate and watches their RayServices appear. Then it leaves the operator idle,
edits RayServices by hand, and restarts the operator. It prints JSON:

- latency from the creation of a service to the creation of its RayService, and from an edit of a RayService to its repair
  (milliseconds, p50 / p95 / p99);
- resident memory of the operator, idle and with all services (MB), and CPU milliseconds per service;
- idle: requests of the operator per second, as the API server counts them, and changed objects;
- restart: seconds until every service has had a pass and none is queued. Requests, CPU seconds and changed objects are
  counted until half a minute later; by then the watches have started and versions have been compared;
- with `--churn N`: N services are created and deleted, and the figure is the growth of memory per 1,000 of them (slope of
  a line through the second half). Each sample is taken after the garbage collector has finished, because the operator
  keeps state for every existing object.

`--bare` measures `bare_operator.py` first, on the same control plane: kopf, one queue, server-side apply, nothing else.
Neither KubeRay nor the stand-in runs, so the services are suspended: the operator polls services that wait for KubeRay,
and this would be a load of its own. With `--preload Opportunistic` each service also has a DaemonSet with a pod on each
of the three simulated nodes. The other programs of the control plane start these pods on the same cores.
"""

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from kubernetes.aio import config, watch
from kubernetes.aio.client import ApiClient, ApiException, Configuration, CustomObjectsApi

from sd_operator.local.ray_process import free_ports
from sd_testkit.chart import Account, service_account
from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.operator_process import outside
from sd_testkit.playground import install_crds

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples/quickstart.yaml"
OURS = ("sdservice.dev", "v1alpha1", "default", "stablediffusionservices")
THEIRS = ("ray.io", "v1", "default", "rayservices")
PAGE = 500
IDLE_SECONDS = 60
DISPATCHED = "apiserver_flowcontrol_dispatched_requests_total"
OF_SERVICE_ACCOUNTS = "service-accounts"
SETTLE_SECONDS = 30
EDITS = 50
LIMIT_SECONDS = 7200
MB = 1e6


@dataclass
class Seen:
    """The time at which each RayService first appeared and was last in its desired state, and the deleted ones."""

    made: dict[str, float] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    right: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """A control plane and a client of it.

    Attributes:
        control_plane: the control plane.
        api: its client.
        service: the service that is created under many names.
    """

    control_plane: ControlPlane
    api: ApiClient
    service: Mapping[str, Any]

    @property
    def objects(self) -> CustomObjectsApi:
        """The API for services and RayServices."""
        return CustomObjectsApi(self.api)

    async def create(self, name: str) -> None:
        """Create the service under another name."""
        body = self.service | {"metadata": {"name": name}}
        await self.objects.create_namespaced_custom_object(*OURS, body=body)

    async def delete(self, place: tuple[str, str, str, str], name: str) -> None:
        """Delete a service; the garbage collector deletes its children."""
        await self.objects.delete_namespaced_custom_object(*place, name)

    async def versions(self) -> dict[str, str]:
        """Return the resource versions of all services and RayServices."""
        found = {}
        for place in (OURS, THEIRS):
            query: dict[str, Any] = {"limit": PAGE}
            while True:
                page = await self.objects.list_namespaced_custom_object(*place, **query)
                for item in page["items"]:
                    found[f"{place[3]}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
                if not page["metadata"].get("continue"):
                    break
                query["_continue"] = page["metadata"]["continue"]
        return found

    async def metrics(self) -> str:
        """Return the metrics of the API server."""
        request = await self.api.param_serialize(
            "GET", "/metrics", header_params={"Accept": "*/*"}, auth_settings=["BearerToken"]
        )
        text: bytes = await (await self.api.call_api(*request)).read()
        return text.decode()

    @staticmethod
    def requests_in(metrics: str) -> float:
        """Return the number of requests of ServiceAccounts that the API server has answered since its start.

        The operator is the only client here that uses a ServiceAccount.
        """
        counted = (line for line in metrics.splitlines() if line.startswith(f"{DISPATCHED}{{"))
        return sum(float(line.rpartition(" ")[2]) for line in counted if f'"{OF_SERVICE_ACCOUNTS}"' in line)

    async def requests(self) -> float:
        """Return the current number of such requests."""
        return self.requests_in(await self.metrics())

    @asynccontextmanager
    async def watching(self) -> Any:
        """Record when RayServices appear; a failed watch ends the tasks that wait for it."""
        seen = Seen()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._watch(seen))
            try:
                yield seen
            finally:
                task.cancel()

    async def _watch(self, seen: Seen) -> None:
        while True:
            try:
                async for event in watch.Watch().stream(
                    self.objects.list_namespaced_custom_object,
                    *THEIRS,
                    timeout_seconds=LIMIT_SECONDS,
                    _request_timeout=LIMIT_SECONDS,  # otherwise the client ends the watch after five minutes
                ):
                    live, now = event["object"], time.monotonic()
                    if event["type"] == "DELETED":
                        seen.gone.add(live["metadata"]["name"])
                        continue
                    seen.made.setdefault(live["metadata"]["name"], now)
                    if "import_path" in live["spec"].get("serveConfigV2", ""):
                        seen.right[live["metadata"]["name"]] = now
            except (ApiException, TimeoutError):
                await asyncio.sleep(0.1)  # the version is too old, or the watch has timed out: start again


class Operator:
    """An operator as a separate process, with the token, the rights and the Lease of the chart's pod."""

    def __init__(self, control_plane: ControlPlane, account: Account, *command: str) -> None:
        self._processes = control_plane.processes
        self._command = [sys.executable, *command]
        (self._port,) = free_ports(1)
        self._environment = outside(control_plane, account) | {"SDSERVICE_METRICS_PORT": str(self._port)}

    def start(self) -> None:
        """Start it."""
        self._processes.start("operator", self._command, self._environment)

    @property
    def process(self) -> psutil.Process:
        """The running process; if it has ended, a RuntimeError contains the end of its log."""
        process = self._processes.running("operator")
        if process is None:
            self._processes.check("operator")
            raise RuntimeError("it has just ended")
        return process

    def set(self, **variables: object) -> None:
        """Set environment variables for the next start."""
        self._environment |= {name: str(value) for name, value in variables.items()}

    def stop(self) -> None:
        """End it."""
        self._processes.stop("operator")

    def metric(self, name: str) -> float:
        """Return a metric of the operator; NaN, which equals nothing, while the operator does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return math.nan
        return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), math.nan)


def quantiles(name: str, milliseconds: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99."""
    cuts = statistics.quantiles(milliseconds, n=100)
    return {f"{name} p{cut} ms": cuts[cut - 1] for cut in (50, 95, 99)}


def cpu(process: psutil.Process) -> float:
    """Return the CPU seconds that a process has used."""
    used = process.cpu_times()
    return float(used.user + used.system)


async def until(condition: Callable[[], bool | Awaitable[bool]], pause: float = 0.2) -> None:
    """Wait for a condition, up to a time limit."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(pause)


def say(stage: str) -> None:
    """Print the current stage."""
    print(f"{time.strftime('%H:%M:%S')} {stage}", file=sys.stderr, flush=True)


async def creating(
    load: Load, operator: Operator, services: int, rate: float, prefix: str
) -> dict[str, float]:
    """Create services at a rate; measure latency, memory and CPU."""
    async with load.watching() as seen:
        await load.create(f"{prefix}-warm-up")
        await until(lambda: operator.process.is_running() and f"{prefix}-warm-up" in seen.made)
        await asyncio.sleep(3)
        idle, before = operator.process.memory_info().rss, cpu(operator.process)
        created: dict[str, float] = {}
        began = time.monotonic()
        for number in range(services):
            name = f"{prefix}-{number}"
            created[name] = time.monotonic()
            await load.create(name)
            await asyncio.sleep(max(0.0, began + (number + 1) / rate - time.monotonic()))
        offered = services / (time.monotonic() - began)
        await until(lambda: operator.process.is_running() and all(name in seen.made for name in created))
        await asyncio.sleep(5)
        return {
            "services": services,
            "created per second": offered,
            **quantiles("RayService", [(seen.made[name] - at) * 1000 for name, at in created.items()]),
            "RSS idle MB": idle / MB,
            "RSS with all MB": operator.process.memory_info().rss / MB,
            "CPU ms per service": (cpu(operator.process) - before) / services * 1000,
        }


async def idling(load: Load, operator: Operator) -> dict[str, float]:
    """Measure the requests of the operator while nothing changes."""
    before, used, asked = await load.versions(), cpu(operator.process), await load.requests()
    await asyncio.sleep(IDLE_SECONDS)
    asked, used = await load.requests() - asked, cpu(operator.process) - used
    return {
        "idle requests per second": asked / IDLE_SECONDS,
        "idle CPU share": used / IDLE_SECONDS,
        "objects changed while idle": changed(before, await load.versions()),
    }


async def restarting(
    load: Load, operator: Operator, services: int, before: Mapping[str, str]
) -> dict[str, float]:
    """Measure a restart: the seconds until every service has had a pass and none is queued, its cost and its changes."""
    began, asked = time.monotonic(), await load.requests()

    def quiet() -> bool:
        passes = operator.metric("sdservice_reconcile_seconds_count")
        return passes >= services and operator.metric("sdservice_queue_depth") == 0

    await until(quiet)
    took = time.monotonic() - began
    await asyncio.sleep(SETTLE_SECONDS)
    return {
        "restart to quiet s": took,
        "requests of restart": await load.requests() - asked,
        "CPU s of restart": cpu(operator.process),
        "objects changed by restart": changed(before, await load.versions()),
        "RSS after restart MB": operator.process.memory_info().rss / MB,
    }


async def repairing(load: Load, prefix: str) -> dict[str, float]:
    """Edit RayServices by hand, one at a time, and measure the time to each repair."""
    async with load.watching() as seen:
        names = [f"{prefix}-{number}" for number in range(EDITS)]
        await until(lambda: all(name in seen.right for name in names))
        took = []
        for name in names:
            edit = {"spec": {"serveConfigV2": "applications: []"}}
            at = time.monotonic()
            await load.objects.patch_namespaced_custom_object(*THEIRS, name, edit)
            edited = time.monotonic()
            await until(lambda name=name, edited=edited: seen.right[name] > edited, pause=0.005)
            took.append((seen.right[name] - at) * 1000)
        return quantiles("drift repair", took)


async def churning(load: Load, operator: Operator, services: int, rate: float) -> dict[str, float]:
    """Create and delete services in groups; measure the growth of memory."""
    samples = []
    async with load.watching() as seen:
        for start in range(0, services, PAGE):
            names = [f"churn-{number}" for number in range(start, min(start + PAGE, services))]
            began = time.monotonic()
            for number, name in enumerate(names):
                await load.create(name)
                await asyncio.sleep(max(0.0, began + (number + 1) / rate - time.monotonic()))
            await until(lambda names=names: all(name in seen.made for name in names))
            for name in names:
                await load.delete(OURS, name)
            await until(lambda names=names: seen.gone.issuperset(names))
            samples.append((start + len(names), operator.process.memory_info().rss / MB))
    later = samples[len(samples) // 2 :]
    slope = statistics.linear_regression(*zip(*later, strict=True)).slope if len(later) > 1 else 0.0
    return {
        "churned": services,
        "RSS after churn MB": samples[-1][1],
        "RSS growth per 1,000 MB": slope * 1000,
    }


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> int:
    """Return how many objects have another version."""
    return sum(version != after.get(name) for name, version in before.items())


async def measure(
    control_plane: ControlPlane, account: Account, arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Measure all selected figures in one run."""
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    configuration.client_session_kwargs = {"trust_env": False}
    figures: dict[str, dict[str, float]] = {}
    async with ApiClient(configuration) as api:
        service = yaml.safe_load(EXAMPLE.read_text())
        service["spec"] |= {"imagePreload": {"mode": arguments.preload}, "suspend": True}
        load = Load(control_plane, api, service)
        if arguments.bare:
            bare = Operator(control_plane, account, str(HERE / "bare_operator.py"))
            bare.start()
            say("bare operator: creating")
            figures["bare"] = await creating(load, bare, arguments.services, arguments.rate, "bare")
            bare.stop()
            for name in list(await load.versions()):
                if name.startswith(OURS[3]):
                    await load.delete(OURS, name.partition("/")[2])
            say("deleting its services")
            await until(lambda: empty(load))
        operator = Operator(control_plane, account, "-m", "sd_operator")
        operator.start()
        say("operator: creating")
        ours = figures["sd_operator"] = await creating(
            load, operator, arguments.services, arguments.rate, "imagine"
        )
        if arguments.services >= EDITS:
            say("repairing drift")
            ours |= await repairing(load, "imagine")
        before = await load.versions()
        say("idle")
        ours |= await idling(load, operator)
        operator.stop()
        operator.start()
        ours |= await restarting(load, operator, arguments.services, before)
        if arguments.churn:
            say("creating and deleting")
            ours |= await churning(load, operator, arguments.churn, arguments.rate)
    return figures


async def empty(load: Load) -> bool:
    """Whether the garbage collector has finished."""
    return not await load.versions()


def main() -> None:
    """Start a control plane, measure, print, and end it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--preload", choices=("Disabled", "Opportunistic"), default="Disabled")
    parser.add_argument("--churn", type=int, default=0)
    parser.add_argument("--bare", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        control_plane = ControlPlane(Path(folder) / "control-plane")
        try:
            control_plane.start()
            install_crds(control_plane)
            account = service_account(control_plane, Path(folder))
            figures = asyncio.run(measure(control_plane, account, arguments))
        finally:
            control_plane.processes.stop()
    rounded = {
        side: {name: round(value, 2) for name, value in each.items()} for side, each in figures.items()
    }
    print(json.dumps(rounded, indent=1))


if __name__ == "__main__":
    main()
