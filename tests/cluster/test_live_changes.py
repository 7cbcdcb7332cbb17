# SPDX-License-Identifier: Apache-2.0
"""The effect of an edit on a running service: in place, by a second cluster, or none."""

import json

import pytest
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_operator.kube import RAY_CLUSTER, Cluster

TOLERATION = {"key": "spot", "operator": "Exists", "effect": "NoSchedule"}


@pytest.fixture
def patch(kubectl, namespace):
    def send(kind, name, change, *more):
        result = kubectl("patch", kind, name, "-n", namespace, "-p", json.dumps(change), *more)
        assert result.returncode == 0, result.stderr

    return send


@pytest.fixture
def active(get):
    """Name of the RayCluster that serves."""
    return lambda: get("rayservice")["status"]["activeServiceStatus"]["rayClusterName"]


@pytest.fixture
def group(get, active):
    """The worker group of the RayCluster that serves."""
    return lambda: get("raycluster", active())["spec"]["workerGroupSpecs"][0]


async def test_bounds_and_tolerations_reach_the_running_cluster(
    serving, apply, service, patch, active, group, eventually
):
    await serving()
    before = active()
    # What an autoscaler writes.
    numbers = {"replicas": 1, "scaleStrategy": {"workersToDelete": ["some-pod"]}}
    operations = [
        {"op": "add", "path": f"/spec/workerGroupSpecs/0/{key}", "value": numbers[key]} for key in numbers
    ]
    patch("raycluster", before, operations, "--type=json")
    groups = [{"name": "gpu", "tolerations": [TOLERATION]}]
    apply(service(spec={"replicas": {"max": 4}, "workerGroups": groups}))
    await eventually(lambda: group()["maxReplicas"] == 5)
    assert TOLERATION in group()["template"]["spec"]["tolerations"]
    assert {key: group()[key] for key in numbers} == numbers
    assert active() == before


async def test_bounds_changed_by_hand_in_the_running_cluster_come_back(
    serving, patch, active, group, eventually
):
    await serving()
    operations = [{"op": "replace", "path": "/spec/workerGroupSpecs/0/maxReplicas", "value": 9}]
    patch("raycluster", active(), operations, "--type=json")
    await eventually(lambda: group()["maxReplicas"] == 2)


async def test_limits_and_scaling_to_zero_and_back_keep_the_cluster(
    serving, apply, service, kubectl, namespace, get, active, group, eventually, condition
):
    def excludes_head():
        return get("rayservice")["spec"].get("excludeHeadPodFromServeSvc", False)

    await serving()
    before = active()
    apply(service(spec={"limits": {"maxSteps": 33}}))
    await eventually(lambda: "max_steps: 33" in get("rayservice")["spec"]["serveConfigV2"])
    for floor in ("0", "1"):
        scaled = kubectl("scale", "sdservice", "imagine", f"--replicas={floor}", "-n", namespace)
        assert scaled.returncode == 0, scaled.stderr
        await eventually(lambda floor=floor: group()["minReplicas"] == int(floor))
        await eventually(lambda floor=floor: excludes_head() is (floor == "1"))
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    assert active() == before


async def test_failed_upgrade_leaves_the_old_cluster_serving_and_a_revert_heals(
    serving, apply, service, kubectl, namespace, active, eventually, condition
):
    await serving()
    before = active()
    scripted = "testkit.sdservice.dev/application"
    kubectl("annotate", "rayservice", "imagine", "-n", namespace, f"{scripted}=DEPLOY_FAILED")
    apply(service(spec={"image": {"tag": "broken"}}))
    await eventually(lambda: condition("Upgrading") == ("True", "UpgradeFailed"))
    assert active() == before
    await eventually(lambda: condition("Ready") == ("True", "Degraded"))
    kubectl("annotate", "rayservice", "imagine", "-n", namespace, f"{scripted}-")
    apply(service(spec={"image": {"tag": None}}))
    # KubeRay does not go back: a revert is one more cluster.
    await eventually(lambda: condition("Upgrading") == ("False", "UpToDate") and active() != before)
    await eventually(lambda: condition("Ready") == ("True", "Serving"))


async def test_in_place_only_says_what_it_leaves_out(
    serving, apply, service, get, active, eventually, condition
):
    await serving(upgrade={"strategy": "InPlaceOnly"})
    before = active()
    keep = {"upgrade": {"strategy": "InPlaceOnly"}}
    apply(service(spec={**keep, "image": {"tag": "other"}, "limits": {"maxSteps": 44}}))
    await eventually(lambda: condition("Upgrading") == ("False", "ChangesIgnored"))
    told = next(each for each in get("sdservice")["status"]["conditions"] if each["type"] == "Upgrading")
    assert "containers[ray-head].image" in told["message"]
    assert "max_steps: 44" in get("rayservice")["spec"]["serveConfigV2"]
    assert active() == before
    apply(service(spec={**keep, "image": {"tag": None}}))
    await eventually(lambda: condition("Upgrading") == ("False", "UpToDate"))


async def test_a_second_cluster_that_cannot_fit_is_told(serving, apply, service, get, eventually, condition):
    await serving(replicas={"max": 1})
    apply(service(spec={"replicas": {"max": 1}, "workerGroups": [{"name": "gpu", "gpusPerWorker": 16}]}))
    await eventually(lambda: condition("Upgrading") == ("True", "ShortOfGpus"))
    told = next(each for each in get("sdservice")["status"]["conditions"] if each["type"] == "Upgrading")
    assert "No node has had enough nvidia.com/gpu for 1 of its 1 worker pods" in told["message"]
    assert condition("Ready") == ("True", "Serving")


async def test_a_patch_of_a_cluster_that_changed_meanwhile_does_nothing(serving, control_plane, get, active):
    await serving()
    live = get("raycluster", active())
    path = "/spec/workerGroupSpecs/0/maxReplicas"
    stale = [{"op": "test", "path": path, "value": 77}, {"op": "replace", "path": path, "value": 5}]
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        assert await Cluster(api, 20).patch(RAY_CLUSTER, live, stale, "test") is None
    assert get("raycluster", active())["spec"] == live["spec"]
