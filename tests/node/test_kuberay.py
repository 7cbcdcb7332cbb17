# SPDX-License-Identifier: Apache-2.0
"""The scenario list on a real node with real KubeRay, real Ray and the project's images.

The command is `make node KUBERAY=... KUBERAY_MANIFESTS=...`.

Beside each scenario the truth meter requests a picture once a second. The test prints seconds and shares. A tracer records
KubeRay's changes into the folder that SDSERVICE_RESULTS names (default: .cache/kuberay).
"""

import asyncio
import contextlib
import os
import shutil
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_testkit.cluster.api_server import ApiServer
from sd_testkit.generators.merging import merged
from sd_testkit.generators.open_load import Load, shares
from sd_testkit.node import GivenKubeRay
from sd_testkit.node.gateway import CLASS, install_gateway_api, start_gateway
from sd_testkit.node.installing import OPERATOR, SYSTEM, cluster_with_images, install_chart
from sd_testkit.node.node import ADDRESS
from sd_testkit.node.volumes import make_volumes
from sd_testkit.processes import Processes
from sd_testkit.scenarios import SCENARIOS, User
from sd_testkit.scenarios.user import NAME
from sd_testkit.truth.report import play, row, seconds_of, table
from sd_testkit.truth.tracer import Tracer

NAMESPACE = "scenarios"
KUBERAY = "deployment/kuberay-operator"
STEPS = {"stepSizePercent": 25, "intervalSeconds": 5}
PATIENCE_SECONDS = 1200
READING_SECONDS = 15
BESIDE_SECONDS = 15
"""Load before a head is killed, and after another one serves."""
# Two clusters of it and KubeRay fit on two cores; a head's autoscaler alone asks for half a one.
SMALL = {
    "head": {"resources": {"cpu": "100m", "memory": "3Gi"}},
    "workerGroups": [{"name": "cpu", "resources": {"cpu": "100m", "memory": "3Gi"}}],
}

pytestmark = pytest.mark.skipif(
    GivenKubeRay.named() is None,
    reason="make node KUBERAY=<binary> KUBERAY_MANIFESTS=<folder> tries a real KubeRay",
)


@pytest.fixture(scope="module")
def results(root):
    folder = Path(os.environ.get("SDSERVICE_RESULTS") or root / ".cache/kuberay")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
async def real(tmp_path_factory):
    """A cluster with the given KubeRay, and our images on its node."""
    async with cluster_with_images(tmp_path_factory.mktemp("kuberay"), GivenKubeRay.named()) as running:
        yield running


@pytest.fixture(scope="module")
async def operator(real, kubectl):
    await install_chart(real.control_plane)
    yield
    for each, namespace in ((OPERATOR, SYSTEM), (KUBERAY, "default")):
        logs = await asyncio.to_thread(kubectl, "logs", "-n", namespace, each)
        sys.stdout.write(logs.stdout[-10000:])


@pytest.fixture(scope="module")
async def user(operator, real, root):
    """One user and one service, which the scenarios pass on."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = 256
    await config.load_kube_config(str(real.control_plane.kubeconfig), client_configuration=configuration)
    base = merged(yaml.safe_load((root / "examples/cpu.yaml").read_text()), {"spec": SMALL})
    real.control_plane.kubectl("create", "namespace", NAMESPACE)
    async with ApiClient(configuration) as api:
        yield User(api, NAMESPACE, base, PATIENCE_SECONDS, READING_SECONDS)


@pytest.fixture(scope="module")
async def trace(user, results):
    tracer = Tracer(ApiServer(user.api), NAMESPACE, results / "trace.jsonl")
    tracer.file.unlink(missing_ok=True)
    task = asyncio.create_task(tracer.run())
    yield tracer
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture(scope="module")
def verdicts(results):
    """Of the scenarios so far; the table of all of them goes into a file."""
    found = []
    yield found
    (results / "truth.md").write_text(table(found) + "\n")


@pytest.fixture(scope="module")
def redis(real, tmp_path_factory):
    """Debian's Redis on the node's address, which pods reach; empty where it is not installed."""
    program = shutil.which("redis-server")
    processes = Processes(tmp_path_factory.mktemp("redis"))
    if program is not None:
        processes.start("redis", [program, "--bind", ADDRESS, "--protected-mode", "no", "--save", ""])
    yield f"{ADDRESS}:6379" if program else ""
    processes.stop()


@pytest.fixture
def store(request, real, redis, tmp_path):
    """`head.faultTolerance`."""
    if request.param == "volume":
        make_volumes(real.control_plane, tmp_path, count=2)
        return {"store": "volume"}
    if not redis:
        pytest.skip("a state in Redis needs apt-get install redis-server")
    return {"store": "redis", "redis": {"address": redis}}


@pytest.fixture
def load(kubectl):
    """An open-loop load on the Service, by kube-proxy as clients come."""

    def build():
        where = ("get", "service", f"{NAME}-serve-svc", "-n", NAMESPACE, "-o", "jsonpath={.spec.clusterIP}")
        query = {"prompt": "a red circle", "steps": "15"}
        return Load(f"http://{kubectl(*where).stdout}:8000/imagine", query, per_second=1.0)

    return build


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_scenario(user, trace, verdicts, scenario):
    trace.step(scenario.name)
    played = await play(scenario, user)
    verdicts.append((scenario.name, played.verdict))
    sys.stdout.write(f"\n{row(*verdicts[-1])} {played.took:.0f} s\n{seconds_of(played.samples)}\n")
    assert not played.failure, played.failure


@pytest.mark.parametrize("store", ["volume", "redis"], indirect=True)
async def test_replicas_serve_while_their_head_is_replaced(user, trace, store, load):
    trace.step(f"head killed, its state in {store['store']}")
    await user.apply(head={**SMALL["head"], "faultTolerance": store})
    await user.until_changed()
    await user.until_condition("Ready", "True", "Serving")
    await user.until_served()
    workers = await names(user, "worker")
    heads = await names(user, "head")
    traffic = await asyncio.to_thread(load)
    await until_connected(traffic.url)
    async with traffic.running() as seen:
        await asyncio.sleep(BESIDE_SECONDS)
        for pod in await pods(user, "head"):
            await ApiServer(user.api).delete(pod, grace_seconds=0)

        async def replaced():
            return await names(user, "head") and heads.isdisjoint(await names(user, "head"))

        await user.until("another head", replaced)
        await user.until_condition("Ready", "True", "Serving")
        await asyncio.sleep(BESIDE_SECONDS)
    sys.stdout.write(f"\nstate in {store['store']}: {len(seen.answers)} requests, {shares(seen.answers)}\n")
    assert await names(user, "worker") >= workers
    assert not failed(seen.answers)


@pytest.fixture
async def gateway(real, kubectl, tmp_path):
    """Traefik as the cluster's Gateway; KubeRay and the operator start again, with the Gateway API there."""
    install_gateway_api(real.control_plane)
    for each, namespace in ((OPERATOR, SYSTEM), (KUBERAY, "default")):
        await asyncio.to_thread(kubectl, "rollout", "restart", each, "-n", namespace)
        await asyncio.to_thread(kubectl, "rollout", "status", each, "-n", namespace)
    processes = Processes(tmp_path)
    start_gateway(real.control_plane, processes)
    yield {"strategy": "Incremental", "incremental": STEPS | {"gatewayClassName": CLASS}}
    processes.stop()


async def test_requests_move_to_the_next_cluster_in_steps(user, trace, gateway):
    trace.step("incremental upgrade")
    await user.apply(upgrade=gateway)
    await user.until_changed()

    async def address():
        return ((await user.service() or {}).get("status") or {}).get("url", "")

    async def has_address():
        return await address() == f"http://{ADDRESS}"

    await user.until("the address of the Gateway", has_address)
    former, weights = await user.active_cluster(), set()
    traffic = Load(f"{await address()}/imagine", {"prompt": "a red circle", "steps": "15"}, per_second=1.0)
    async with traffic.running() as seen:
        await asyncio.sleep(BESIDE_SECONDS)
        await user.apply(upgrade=gateway, env=[{"name": "OMP_WAIT_POLICY", "value": "PASSIVE"}])

        async def moved():
            live = await user.get("RayService")
            weights.add(live["status"].get("pendingServiceStatus", {}).get("trafficRoutedPercent"))
            return await user.active_cluster() not in {"", former}

        await user.until("another active cluster", moved)
        await user.until_changed()
        await asyncio.sleep(BESIDE_SECONDS)
    sys.stdout.write(
        f"\nincremental: {len(seen.answers)} requests, {shares(seen.answers)}, weights {weights}\n"
    )
    assert {25, 50, 75} <= weights
    assert not failed(seen.answers)


async def until_connected(url):
    """Wait for kube-proxy's rules, which come up to a second after an endpoint is ready."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                async with aiohttp.request("GET", url):
                    return
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.3)


def failed(answers):
    """Requests that got no picture, by the seconds since the first one."""
    began = min(each.sent for each in answers)
    return {round(each.sent - began, 1): each for each in answers if each.outcome != "answered"}


async def pods(user, node_type):
    """The active cluster's pods of a type."""
    labels = f"ray.io/cluster={await user.active_cluster()},ray.io/node-type={node_type}"
    return await user.list("Pod", labels)


async def names(user, node_type):
    """Their names."""
    return {each["metadata"]["name"] for each in await pods(user, node_type)}
