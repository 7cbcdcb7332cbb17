# SPDX-License-Identifier: Apache-2.0
"""Placeholders of spare workers."""

import pytest

from sd_operator.api import Status
from sd_operator.builders.ray_service import ray_service
from sd_operator.builders.warm import warm_deployment
from sd_operator.observe.snapshot import WarmView, observe
from sd_operator.reconcile.desired import desired
from sd_operator.settings import Settings
from sd_operator.status import compute

GROUPS = [{"name": "l4", "gpusPerWorker": 2, "nodeSelector": {"pool": "l4"}}, {"name": "a10"}]


def pods_of(resource, settings):
    warm = warm_deployment(resource, settings)["spec"]["template"]["spec"]
    worker = ray_service(resource, settings)["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    return warm, worker["template"]["spec"]


def test_a_placeholder_takes_exactly_the_place_of_a_worker_of_the_first_group(resource):
    warm, worker = pods_of(resource(workerGroups=GROUPS, imagePreload={"warmNodes": 2}), Settings())
    assert warm["containers"][0]["resources"] == worker["containers"][0]["resources"]
    assert warm["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert {key: warm[key] for key in ("nodeSelector", "tolerations")} == {
        key: worker[key] for key in ("nodeSelector", "tolerations")
    }


def test_it_gives_way_to_any_worker_at_once(resource):
    group = {"name": "gpu", "priorityClassName": "workers"}
    warm, _ = pods_of(resource(workerGroups=[group], imagePreload={"warmNodes": 1}), Settings())
    assert (warm["priorityClassName"], warm["terminationGracePeriodSeconds"]) == ("sdservice-warm", 0)
    assert warm["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("settings", "image", "command"),
    [
        (Settings(runtime_repository="r/i", runtime_tag="1"), "r/i:1", ["sleep", "2147483647"]),
        (Settings(warm_image="registry.k8s.io/pause:3.10"), "registry.k8s.io/pause:3.10", None),
    ],
    ids=["runtime image", "pause image"],
)
def test_it_runs_the_runtime_image_or_the_one_the_platform_chose(resource, settings, image, command):
    warm, _ = pods_of(resource(imagePreload={"warmNodes": 1}), settings)
    (container,) = warm["containers"]
    assert (container["image"], container.get("command")) == (image, command)


def test_a_change_of_the_placeholders_asks_for_no_place_more(resource):
    strategy = warm_deployment(resource(imagePreload={"warmNodes": 1}), Settings())["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": "100%"}


def kinds(resource, **spec):
    return [body["kind"] for body in desired(resource(**spec), Settings())]


def test_there_are_placeholders_while_they_are_asked_for(resource):
    warm = {"mode": "Disabled", "warmNodes": 1}
    assert kinds(resource, imagePreload=warm) == ["NetworkPolicy", "Deployment", "RayService"]
    assert kinds(resource, imagePreload=warm, suspend=True) == ["NetworkPolicy", "RayService"]
    assert kinds(resource, imagePreload={"mode": "Disabled"}) == ["NetworkPolicy", "RayService"]


def placeholder(**status):
    labels = {"sdservice.dev/name": "imagine", "app.kubernetes.io/component": "warm"}
    return {"metadata": {"name": "imagine-warm-x", "labels": labels}, "status": status}


def deployment(**status):
    return {"metadata": {"name": "imagine-warm"}, "spec": {"replicas": 2}, "status": status}


def test_the_status_counts_places_and_nothing_else_counts_placeholders(resource, scene):
    running = placeholder(phase="Running", conditions=[{"type": "Ready", "status": "True"}])
    seen = observe(None, [running, running], warm=deployment(readyReplicas=2))
    assert (seen.pods, seen.warm) == ((), WarmView(2, 2))
    snapshot = scene.snapshot(warm=seen.warm)
    status = compute(resource(), snapshot, "image:1", Status(), scene.now)
    assert status.warm_nodes.summary == "2/2"
    assert [(each.group, each.desired) for each in status.workers] == [("gpu", 1)]


def test_what_keeps_a_placeholder_from_its_place_is_told():
    waiting = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    seen = observe(None, [placeholder(conditions=[waiting])], warm=deployment())
    assert seen.warm == WarmView(2, 0, "pod imagine-warm-x: 0/3 nodes")


def test_pods_that_may_not_be_made_are_told_in_the_same_words_each_time():
    words = 'pods "imagine-warm-abc12" is forbidden: no PriorityClass with name sdservice-warm was found'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}
    seen = observe(None, [], warm=deployment(conditions=[failure]))
    assert seen.warm == WarmView(2, 0, "no PriorityClass with name sdservice-warm was found")
