# SPDX-License-Identifier: Apache-2.0
from datetime import timedelta

from sd_operator.api.status import Reason
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.snapshot import OldCluster

SINCE = "2026-01-02T03:04:05Z"


def waiting(scene, name="w", since=SINCE, reason=Reason.UNSCHEDULABLE, **more):
    problem = PodProblem(reason, f"worker pod {name}", "0/3 nodes are available", since)
    return scene.but(scene.worker, ready=False, problem=problem, **more)


def test_a_pod_that_just_began_to_wait_is_the_node_autoscalers_business(scene):
    snapshot = scene.snapshot(pods=(scene.head, waiting(scene)))
    assert scene.told("Schedulable", snapshot) == ("True", "Scheduled")
    later = scene.now + timedelta(seconds=31)
    found = scene.conditions(snapshot, now=later)["Schedulable"]
    assert (found.status, found.reason) == ("False", "Unschedulable")
    assert found.message == "worker pod w, since 2026-01-02T03:04:05Z: 0/3 nodes are available"


def test_the_one_that_waits_longest_speaks_for_all_and_the_head_first(scene):
    pods = (
        waiting(scene, "young", "2026-01-02T03:01:00Z"),
        waiting(scene, "old", "2026-01-02T03:00:00Z"),
        waiting(scene, "head", "2026-01-02T03:02:00Z", is_head=True),
    )
    found = scene.conditions(scene.snapshot(pods=pods))["Schedulable"]
    assert found.message.startswith("worker pod head, ")
    assert found.message.endswith("(2 more wait)")
    found = scene.conditions(scene.snapshot(pods=pods[:2]))["Schedulable"]
    assert found.message.startswith("worker pod old, ")


def test_what_a_replaced_cluster_still_holds_is_named_and_until_when(scene):
    kept = (OldCluster("imagine-old", 2), OldCluster("imagine-older", 1, "2026-01-02T03:06:05Z"))
    pods = (waiting(scene, "w", "2026-01-02T03:00:00Z"),)
    found = scene.conditions(scene.snapshot(pods=pods, old_clusters=kept))["Schedulable"]
    assert found.message == (
        "worker pod w, since 2026-01-02T03:00:00Z: 0/3 nodes are available."
        " The replaced RayCluster imagine-old still has 2 pods; KubeRay deletes the cluster"
        " rayClusterDeletionDelaySeconds after it stopped serving."
        " The replaced RayCluster imagine-older still has 1 pod that finishes its requests, until"
        " 2026-01-02T03:06:05Z at the latest."
    )


def test_a_quota_counts_at_once(scene):
    problem = PodProblem(Reason.QUOTA_EXCEEDED, "a worker pod", "exceeded quota: team", SINCE)
    snapshot = scene.snapshot(cluster_troubles={scene.cluster: problem})
    found = scene.conditions(snapshot)["Schedulable"]
    assert (found.status, found.reason) == ("False", "QuotaExceeded")
    assert scene.told("Ready", snapshot) == ("True", "Serving"), "what runs goes on"


def test_other_troubles_are_not_the_schedulers(scene):
    snapshot = scene.snapshot(pods=(scene.head, waiting(scene, reason=Reason.IMAGE_PULL_FAILED)))
    assert scene.told("Schedulable", snapshot, now=scene.now + timedelta(hours=1)) == ("True", "Scheduled")
    assert scene.told("Ready", snapshot) == ("False", "ImagePullFailed")


def test_pods_of_both_clusters_count(scene):
    view = scene.but(scene.view, pending="imagine-new", upgrading=True)
    pods = (scene.head, scene.worker, waiting(scene, cluster="imagine-new"))
    snapshot = scene.snapshot(view, pods)
    assert scene.told("Schedulable", snapshot, now=scene.now + timedelta(minutes=1)) == (
        "False",
        "Unschedulable",
    )
    assert scene.told("Ready", snapshot)[0] == "True"
