# SPDX-License-Identifier: Apache-2.0
import copy

import pytest

from sd_operator.builders.fingerprint import fingerprint, runs_other_config
from sd_operator.builders.ray_service import ray_service
from sd_operator.observe.raycluster_diff import differences
from sd_operator.reconcile.raycluster_patch import live_patch
from sd_operator.settings import Settings

GROUPS = [{"name": "a", "maxReplicas": 2}, {"name": "b", "maxReplicas": 3}]


@pytest.fixture
def config(resource):
    def build(**spec):
        wanted = {"replicas": {"min": 1, "max": 4}, "workerGroups": GROUPS} | spec
        return ray_service(resource(**wanted), Settings())["spec"]["rayClusterConfig"]

    return build


def cluster(config, made_from=None):
    """A RayCluster as KubeRay makes it, with what its autoscaler writes."""
    spec = copy.deepcopy(config)
    for group in spec["workerGroupSpecs"]:
        group |= {"replicas": 2, "scaleStrategy": {"workersToDelete": ["x"]}}
    annotations = {"sdservice.dev/cluster-config": made_from or fingerprint(config)}
    return {"metadata": {"name": "imagine-abcde", "annotations": annotations}, "spec": spec}


def service(config):
    """A RayService that carries the config."""
    annotations = {"sdservice.dev/cluster-config": fingerprint(config)}
    return {"metadata": {"name": "imagine", "annotations": annotations}}


def applied(patch, live):
    """The spec after the patch, applied by hand."""
    spec = copy.deepcopy(live["spec"])
    for operation in patch:
        *parents, last = operation["path"].removeprefix("/spec/").split("/")
        target = spec
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        if operation["op"] == "test":
            assert target[last] == operation["value"]
        elif operation["op"] == "remove":
            del target[last]
        else:
            target[last] = operation["value"]
    return spec


def test_nothing_to_do_is_no_patch(config):
    assert live_patch(config(), cluster(config())) == []


def test_bounds_and_tolerations_arrive_and_the_autoscalers_numbers_stay(config):
    spot = {"key": "spot", "operator": "Exists"}
    groups = [{"name": "a", "minReplicas": 1, "maxReplicas": 5}, {"name": "b", "tolerations": [spot]}]
    wanted = config(workerGroups=groups, head={"tolerations": [spot]})
    live = cluster(config())
    patch = live_patch(wanted, live)
    after = applied(patch, live)
    assert [(g["minReplicas"], g["maxReplicas"]) for g in after["workerGroupSpecs"]] == [(1, 5), (0, 5)]
    assert after["workerGroupSpecs"][1]["template"]["spec"]["tolerations"][0] == spot
    assert after["headGroupSpec"]["template"]["spec"]["tolerations"] == [spot]
    assert {g["replicas"] for g in after["workerGroupSpecs"]} == {2}
    assert not any(part in each["path"] for each in patch for part in ("/replicas", "scaleStrategy"))
    assert live_patch(wanted, {**live, "spec": after}) == []


def test_each_group_is_tested_by_its_name_and_each_value_by_what_it_was(config):
    wanted = config(workerGroups=[GROUPS[0], {"name": "b", "maxReplicas": 9}])
    assert live_patch(wanted, cluster(config())) == [
        {"op": "test", "path": "/spec/workerGroupSpecs/1/groupName", "value": "b"},
        {"op": "test", "path": "/spec/workerGroupSpecs/1/maxReplicas", "value": 3},
        {"op": "replace", "path": "/spec/workerGroupSpecs/1/maxReplicas", "value": 9},
    ]


def test_tolerations_that_are_taken_away_are_taken_away(config):
    live = cluster(config(head={"tolerations": [{"key": "spot", "operator": "Exists"}]}))
    after = applied(live_patch(config(), live), live)
    assert "tolerations" not in after["headGroupSpec"]["template"]["spec"]


def test_a_group_is_found_by_its_name_wherever_it_stands(config):
    wanted = config(workerGroups=[{"name": "c"}, {"name": "b", "maxReplicas": 7}])
    live = cluster(config())
    after = applied(live_patch(wanted, live), live)
    assert [group["maxReplicas"] for group in after["workerGroupSpecs"]] == [2, 7]


def test_bounds_of_workers_of_another_size_are_for_the_new_cluster(config):
    """One worker of four GPUs is enough then; the cluster that serves still has workers of one."""
    wanted = config(workerGroups=[{"name": "a", "gpusPerWorker": 4, "maxReplicas": 1}, GROUPS[1]])
    assert live_patch(wanted, cluster(config())) == []


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": {"min": 2, "max": 5}},
        {
            "workerGroups": [
                {"name": "a", "maxReplicas": 4, "tolerations": [{"operator": "Exists"}]},
                GROUPS[1],
            ]
        },
        {"head": {"tolerations": [{"operator": "Exists"}]}},
        {"limits": {"maxSteps": 9}},
        {"replicas": {"min": 0, "max": 4}},
    ],
)
def test_what_kuberay_does_not_hear_is_no_other_config(config, spec):
    assert fingerprint(config(**spec)) == fingerprint(config())


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"image": {"tag": "v9"}}, "headGroupSpec.template.spec.containers[ray-head].image"),
        ({"autoscaling": {"idleWorkerSeconds": 9}}, "autoscalerOptions.idleTimeoutSeconds"),
        ({"workerGroups": [*GROUPS, {"name": "c"}]}, "workerGroupSpecs"),
        ({"env": [{"name": "TZ", "value": "UTC"}]}, "headGroupSpec.template.spec.containers[ray-head].env"),
    ],
)
def test_another_config_is_told_by_its_paths(config, spec, where):
    live = cluster(config())
    assert runs_other_config(service(config(**spec)), live)
    assert where in differences(config(**spec), live)


def test_quantities_in_kuberays_words_are_the_same(config):
    wanted = config(workerGroups=[{"name": "a", "resources": {"cpu": "0.5", "memory": "1024Mi"}}])
    live = cluster(wanted, made_from="other")
    limits = live["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]
    limits |= {"cpu": "500m", "memory": "1Gi"}
    live["spec"]["headGroupSpec"]["rayStartParams"]["more"] = "1"
    assert runs_other_config(service(wanted), live)
    assert differences(wanted, live) == "a field that the spec no longer has"


def test_a_cluster_without_a_fingerprint_is_taken_as_it_is(config):
    live = cluster(config())
    del live["metadata"]["annotations"]
    assert not runs_other_config(service(config(image={"tag": "v9"})), live)
