# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.desired import desired
from sd_operator.settings import Settings

POLICY = ("NetworkPolicy", "imagine-pods")


def names(resource, **spec):
    return [(body["kind"], body["metadata"]["name"]) for body in desired(resource(**spec), Settings())]


def test_preload_per_group_comes_before_the_ray_service(resource):
    assert names(resource, workerGroups=[{"name": "a"}, {"name": "b"}]) == [
        POLICY,
        ("DaemonSet", "imagine-preload-a"),
        ("DaemonSet", "imagine-preload-b"),
        ("RayService", "imagine"),
    ]


@pytest.mark.parametrize(
    "spec",
    [{"suspend": True}, {"imagePreload": {"mode": "Disabled"}}, {"imagePreload": {"mode": "External"}}],
    ids=["suspended", "disabled", "external"],
)
def test_no_preload_pods_where_there_is_nothing_for_them_to_do(resource, spec):
    assert names(resource, **spec) == [POLICY, ("RayService", "imagine")]


def test_no_policy_where_none_is_wanted(resource):
    spec = {"networkPolicy": {"enabled": False}, "imagePreload": {"mode": "Disabled"}}
    assert names(resource, **spec) == [("RayService", "imagine")]


def test_preload_runs_the_workers_image_where_workers_run_without_a_gpu(resource):
    group = {"name": "gpu", "nodeSelector": {"pool": "l4"}, "priorityClassName": "high"}
    _, daemon_set, ray_service = desired(resource(workerGroups=[group]), Settings())
    pod = daemon_set["spec"]["template"]["spec"]
    worker = ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    assert pod["containers"][0]["image"] == worker["containers"][0]["image"]
    assert pod["nodeSelector"] == worker["nodeSelector"]
    assert pod["tolerations"] == worker["tolerations"]
    assert "nvidia.com/gpu" not in str(pod["containers"][0]["resources"])
    assert "priorityClassName" not in pod
