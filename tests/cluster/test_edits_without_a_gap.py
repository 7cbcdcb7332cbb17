# SPDX-License-Identifier: Apache-2.0
"""No edit removes the last endpoint of an active service, and no cluster that is being replaced delays the next one."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration, DiscoveryV1Api

from sd_testkit.cluster.control_plane import simulated_node

SERVICE = "kubernetes.io/service-name=imagine-serve-svc"


@pytest.fixture
async def endpoints(control_plane, namespace):
    """Count the pods that take requests while a block runs; what was counted, in order."""
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:

        async def count():
            found = await DiscoveryV1Api(api).list_namespaced_endpoint_slice(
                namespace, label_selector=SERVICE
            )
            slices = [each.endpoints or [] for each in found.items]
            return sum(bool(each.conditions.ready) for every in slices for each in every)

        @asynccontextmanager
        async def counting():
            counts = [await count()]

            async def run():
                while True:
                    counts.append(await count())
                    await asyncio.sleep(0.02)

            task = asyncio.create_task(run())
            try:
                yield counts
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        yield counting


@pytest.fixture
def clusters(kubectl, namespace):
    """Names of the RayClusters that are not on their way out."""

    def names():
        found = json.loads(kubectl("get", "rayclusters", "-n", namespace, "-o", "json").stdout)["items"]
        return {each["metadata"]["name"] for each in found if "deletionTimestamp" not in each["metadata"]}

    return names


@pytest.fixture
def status_of(get):
    def read(side):
        return (get("rayservice")["status"].get(f"{side}ServiceStatus") or {}).get("rayClusterName", "")

    return read


async def test_raising_the_floor_from_zero_keeps_an_endpoint(
    operator, apply, service, eventually, condition, endpoints, get
):
    """The head answers until a worker does."""
    apply(service(spec={"replicas": {"min": 0, "max": 1}}))
    await eventually(lambda: condition("Ready") == ("True", "ScaledToZero"))
    async with endpoints() as counts:
        apply(service(spec={"replicas": {"min": 1, "max": 1}}))
        await eventually(lambda: get("rayservice")["spec"].get("excludeHeadPodFromServeSvc") is True)
        await eventually(lambda: condition("Ready") == ("True", "Serving"))
    assert 0 not in counts


async def test_two_edits_in_a_row_leave_the_serving_cluster_alone(
    operator, apply, service, eventually, condition, endpoints, status_of, clusters
):
    """To zero with other pods, and back before the second cluster serves: the one in between goes at once."""
    apply(service(spec={"replicas": {"min": 0, "max": 1}}))
    await eventually(lambda: condition("Ready") == ("True", "ScaledToZero"))
    first = status_of("active")
    async with endpoints() as counts:
        apply(service(spec={"workerGroups": [{"name": "gpu", "gpusPerWorker": 16}]}))
        # Named before it is created; until then an edit changes the spec it is created with.
        await eventually(lambda: status_of("pending") in clusters())
        second = status_of("pending")
        apply(service(spec={"workerGroups": [{"name": "gpu", "gpusPerWorker": 2}]}))
        await eventually(lambda: second not in clusters())
        await eventually(lambda: status_of("active") not in {first, second, ""})
        await eventually(lambda: condition("Ready") == ("True", "Serving"))
    assert 0 not in counts


@pytest.fixture
def room(kubectl, namespace):
    """Worker groups on a node of their own, which has two GPUs: what two clusters hold, and no third one."""
    body = simulated_node(namespace, {"nvidia.com/gpu": "2"}, [{"key": namespace, "effect": "NoSchedule"}])
    body["metadata"]["labels"]["room"] = namespace
    assert kubectl("apply", "-f", "-", stdin=json.dumps(body)).returncode == 0
    toleration = {"key": namespace, "operator": "Exists"}
    yield [{"name": "gpu", "nodeSelector": {"room": namespace}, "tolerations": [toleration]}]
    kubectl("delete", "node", namespace, "--wait=false")


async def test_a_cluster_that_is_in_the_way_of_the_next_one_goes(
    operator, apply, service, eventually, condition, status_of, clusters, room
):
    """KubeRay would keep it for most of an hour, as long as its longest request may take."""
    shape = {"workerGroups": room, "upgrade": {"surgeWorkers": 0}, "imagePreload": {"mode": "Disabled"}}

    async def edited(seconds):
        before = status_of("active") if seconds < 3000 else ""
        apply(service(spec={**shape, "limits": {"timeoutSeconds": seconds}}))
        await eventually(lambda: status_of("active") not in {before, ""} and not status_of("pending"))
        await eventually(lambda: condition("Ready") == ("True", "Serving"))
        return status_of("active")

    first = await edited(3000)
    second = await edited(2999)
    assert clusters() == {first, second}
    third = await edited(2998)
    assert clusters() == {second, third}
