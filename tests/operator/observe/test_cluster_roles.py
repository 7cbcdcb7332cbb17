# SPDX-License-Identifier: Apache-2.0
"""The choice of the RayCluster for the Serve config, and of the one that may be deleted before KubeRay's delay."""

import pytest

from sd_operator.observe.cluster_roles import lacks_a_node, old_clusters, removable, taking_config, with_pods
from sd_operator.observe.snapshot import OldCluster, observe

CONFIG = "sdservice.dev/cluster-config"


def ray_service(active="", pending="", strategy="NewCluster", endpoints=1, config="1"):
    return {
        "metadata": {"name": "imagine", "uid": "rs", "annotations": {CONFIG: config}},
        "spec": {"upgradeStrategy": {"type": strategy}},
        "status": {
            "activeServiceStatus": {"rayClusterName": active},
            "pendingServiceStatus": {"rayClusterName": pending},
            "numServeEndpoints": endpoints,
        },
    }


def cluster(name, created=0, floor=1, config="1", owner="rs", **more):
    """Created at a minute."""
    metadata = {
        "name": name,
        "creationTimestamp": f"2026-01-01T00:{created:02}:00Z",
        "ownerReferences": [{"uid": owner, "controller": True}],
        "annotations": {CONFIG: config},
        **more,
    }
    return {"metadata": metadata, "spec": {"workerGroupSpecs": [{"minReplicas": floor}]}}


def names(found):
    return [each["metadata"]["name"] for each in found]


def gone(live, clusters, *, needed=False):
    return names(removable(live, clusters, capacity_is_needed=needed))


def test_what_the_status_does_not_name_is_old():
    clusters = [cluster("a"), cluster("b"), cluster("c"), cluster("x", owner="another")]
    assert names(old_clusters(ray_service("a", "b"), clusters)) == ["c"]
    assert names(old_clusters(None, clusters)) == []


def test_a_cluster_that_never_served_goes_at_once():
    """A is the serving one; B was to be the next one, and C is now."""
    clusters = [cluster("a", 0), cluster("b", 5), cluster("c", 9)]
    assert gone(ray_service("a", "c"), clusters) == ["b"]
    assert gone(ray_service("", "c", endpoints=0), clusters) == ["a", "b"]


def test_a_cluster_that_has_served_goes_when_its_place_is_needed():
    clusters = [cluster("a", 0), cluster("b", 5), cluster("c", 9)]
    assert gone(ray_service("b", "c"), clusters) == []
    assert gone(ray_service("b", "c"), clusters, needed=True) == ["a"]


def test_a_cluster_that_may_hold_requests_has_its_time():
    clusters = [cluster("a", 0, floor=0), cluster("b", 5), cluster("c", 9)]
    assert gone(ray_service("b", "c"), clusters, needed=True) == []


@pytest.mark.parametrize(
    ("live", "clusters"),
    [
        (ray_service("a", "c", strategy="NewClusterWithIncrementalUpgrade"), [cluster("a"), cluster("b", 5)]),
        (ray_service("a", "c"), [cluster("a"), cluster("b", 5, deletionTimestamp="2026-01-01T00:09:00Z")]),
        (ray_service("a", "c"), [cluster("a"), cluster("b", 5, owner="another")]),
        (ray_service("", "c", endpoints=1), [cluster("b", 5)]),
    ],
    ids=[
        "it may take requests",
        "it goes already",
        "not ours",
        "what serves is unknown",
    ],
)
def test_nothing_is_deleted_on_a_guess(live, clusters):
    assert gone(live, clusters, needed=True) == []


def test_without_the_serving_cluster_none_is_known_to_be_younger():
    assert gone(ray_service("a", "c"), [cluster("b", 5)]) == []


def test_the_next_cluster_takes_the_config_and_else_the_serving_one():
    clusters = [cluster("a"), cluster("b")]
    assert names(taking_config(ray_service("a", "b"), clusters)) == ["b"]
    assert names(taking_config(ray_service("a"), clusters)) == ["a"]
    assert names(taking_config(ray_service(), clusters)) == []


def test_a_cluster_that_is_about_to_be_replaced_keeps_its_bounds():
    """It goes on with the replicas of its own config."""
    assert taking_config(ray_service("a", config="2"), [cluster("a")]) == []
    assert names(taking_config(ray_service("a", config="2", strategy="None"), [cluster("a")])) == ["a"]


@pytest.mark.parametrize(("name", "lacks"), [("imagine-b", True), ("imagine-old", False)])
def test_only_pods_of_clusters_in_use_need_a_place(name, lacks):
    pod = {
        "metadata": {"name": "w", "labels": {"ray.io/cluster": name, "ray.io/is-ray-node": "yes"}},
        "status": {
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
            ]
        },
    }
    assert lacks_a_node(observe(ray_service("imagine-a", "imagine-b"), [pod])) is lacks


def test_what_an_old_cluster_holds_is_counted_and_until_when():
    def pod(cluster_name, **more):
        return {"metadata": {"labels": {"ray.io/cluster": cluster_name}, **more}}

    leaving = [pod("b", deletionTimestamp=f"2026-01-01T00:0{minute}:00Z") for minute in (1, 2)]
    pods = [pod("a"), pod("c"), pod("c", deletionTimestamp="2026-01-01T00:09:00Z"), *leaving]
    clusters = [cluster(name) for name in "abcd"]
    assert with_pods(ray_service("a"), clusters, pods) == (
        OldCluster("b", 2, "2026-01-01T00:02:00Z"),
        OldCluster("c", 2),
    )
