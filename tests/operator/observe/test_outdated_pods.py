# SPDX-License-Identifier: Apache-2.0
"""Pods under a RayCluster that KubeRay has rewritten since they started."""

import copy

import pytest

from sd_operator.builders.ray_service import ray_service
from sd_operator.observe.outdated_pods import outdated
from sd_operator.observe.upgrade_progress import UpgradeState
from sd_operator.settings import Settings
from sd_testkit.kuberay.ray_pods import ray_pod

BEFORE, REWRITTEN, AFTER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-02T00:00:01Z"
VERSION = {"f:metadata": {"f:annotations": {"f:ray.io/kuberay-version": {}}}}


@pytest.fixture
def cluster(resource):
    """A RayCluster as KubeRay makes it of a spec, last written at a time."""

    def build(written=REWRITTEN, **spec):
        body = ray_service(resource(**spec), Settings())
        fields = [{"manager": "kuberay", "time": written, "fieldsV1": VERSION}]
        metadata = {"name": "imagine-a", "namespace": "team", "uid": "u", "managedFields": fields}
        kind = {"apiVersion": "ray.io/v1", "kind": "RayCluster"}
        return {**kind, "metadata": metadata, "spec": body["spec"]["rayClusterConfig"]}

    return build


def pods(cluster, created=BEFORE):
    """A head and a worker as KubeRay makes them of a RayCluster."""
    groups = [("head", cluster["spec"]["headGroupSpec"])]
    groups += [("worker", each) for each in cluster["spec"]["workerGroupSpecs"]]
    made = [ray_pod(cluster, kind, copy.deepcopy(group)) for kind, group in groups]
    for each in made:
        each["metadata"]["creationTimestamp"] = created
    return made


OTHER = {"image": {"tag": "v2"}, "env": [{"name": "TZ", "value": "CET"}]}


def test_pods_from_before_the_rewriting_that_run_something_else_are_counted(cluster):
    assert outdated(cluster(**OTHER), pods(cluster())) == "2 of 2 pods, in env, image"


def test_pods_that_run_what_the_spec_wants_are_up_to_date_however_old(cluster):
    assert outdated(cluster(), pods(cluster())) == ""
    more = cluster(workerGroups=[{"name": "gpu"}, {"name": "appended"}])
    assert outdated(more, pods(cluster())) == "", "KubeRay has appended a group"


def test_a_cluster_that_nobody_rewrote_tells_the_truth_itself(cluster):
    assert outdated(cluster(written=BEFORE, **OTHER), pods(cluster())) == ""
    unwritten = cluster(**OTHER)
    del unwritten["metadata"]["managedFields"]
    assert outdated(unwritten, pods(cluster())) == ""


def test_what_a_webhook_changes_in_every_pod_is_no_difference(cluster):
    live = cluster()

    def mirrored(created):
        found = pods(live, created)
        for each in found:
            each["spec"]["containers"][0]["image"] = "mirror.example.org/i:1"
        return found

    assert outdated(live, [*mirrored(BEFORE), *mirrored(AFTER)]) == ""
    assert outdated(live, mirrored(BEFORE)) == "2 of 2 pods, in image", "nothing shows that it was a webhook"


def test_pods_of_others_and_those_on_their_way_out_do_not_count(cluster):
    old = pods(cluster())
    old[0]["metadata"]["deletionTimestamp"] = AFTER
    old[1]["metadata"]["labels"]["ray.io/cluster"] = "imagine-b"
    assert outdated(cluster(**OTHER), old) == ""


def test_a_condition_tells_of_them(scene):
    snapshot = scene.snapshot(upgrade=UpgradeState(outdated="2 of 3 pods, in image"))
    found = scene.conditions(snapshot)["Upgrading"]
    assert (found.status, found.reason) == ("False", "ChangesIgnored")
    assert "Pods that still run the former spec: 2 of 3 pods, in image." in found.message
