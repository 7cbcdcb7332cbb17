# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.builders.preload import preload_daemon_sets
from sd_operator.reconcile.desired import desired
from sd_operator.settings import Settings

POLICY = ("NetworkPolicy", "imagine-pods")


def names(resource, **spec):
    return [(body["kind"], body["metadata"]["name"]) for body in desired(resource(**spec), Settings())]


def test_preload_comes_before_the_ray_service_one_for_each_placement(resource):
    pools = [{"name": name, "nodeSelector": {"pool": name}} for name in ("a", "b")]
    first, second = (
        each["metadata"]["name"] for each in preload_daemon_sets(resource(workerGroups=pools), Settings())
    )
    assert first != second
    assert names(resource, workerGroups=pools) == [
        POLICY,
        ("DaemonSet", first),
        ("DaemonSet", second),
        ("RayService", "imagine"),
    ]
    assert [kind for kind, _ in names(resource, workerGroups=[{"name": "a"}, {"name": "b"}])] == [
        "NetworkPolicy",
        "DaemonSet",
        "RayService",
    ]


def test_a_cache_is_filled_by_a_daemon_set_of_the_services_own(resource):
    model = {"preset": None, "uri": "hf://owner/name", "revision": "0" * 40}
    cache = {"persistentVolumeClaim": {"claimName": "weights"}}
    _, (_, shared), weights, _ = names(resource, model={**model, "cache": cache})
    assert shared.startswith("sdservice-preload-")
    assert weights == ("DaemonSet", "imagine-weights-gpu")


def test_workers_without_gpus_have_no_preload_unless_they_select_nodes_or_it_is_required(resource):
    bare = [POLICY, ("RayService", "imagine")]
    assert names(resource, gpusPerReplica=0) == bare
    pool = {"name": "cpu", "nodeSelector": {"pool": "cpu"}}
    assert len(names(resource, gpusPerReplica=0, workerGroups=[pool])) == 3
    assert len(names(resource, gpusPerReplica=0, imagePreload={"mode": "Required"})) == 3


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
