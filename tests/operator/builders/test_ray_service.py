# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import yaml

from sd_operator.builders.ray_service import ray_service
from sd_operator.settings import Settings

SETTINGS = Settings()


@pytest.fixture
def built(resource):
    return lambda **spec: ray_service(resource(**spec), SETTINGS)


def groups(body):
    return body["spec"]["rayClusterConfig"]["workerGroupSpecs"]


def test_is_owned_by_the_resource(built):
    (owner,) = built()["metadata"]["ownerReferences"]
    assert owner["uid"] == "uid-1"
    assert owner["controller"]


def test_suspend_strategy_and_version_are_passed_on(built):
    body = built(suspend=True, upgrade={"strategy": "InPlaceOnly"}, image={"rayVersion": "2.61.0"})
    assert body["spec"]["suspend"] is True
    assert body["spec"]["upgradeStrategy"] == {"type": "None"}
    assert body["spec"]["rayClusterConfig"]["rayVersion"] == "2.61.0"


@pytest.mark.parametrize(
    ("limits", "least", "seconds"),
    [({}, 1, 130), ({"timeoutSeconds": 10}, 1, 60), ({"coldStartTimeoutSeconds": 900}, 0, 1030)],
    ids=["longest request", "KubeRay's own", "waking from zero"],
)
def test_after_an_upgrade_the_old_cluster_finishes_what_it_began(built, limits, least, seconds):
    body = built(limits=limits, replicas={"min": least, "max": 1})
    assert body["spec"]["rayClusterDeletionDelaySeconds"] == seconds


def test_incremental_upgrade_has_its_options(built):
    wanted = {"strategy": "Incremental", "incremental": {"gatewayClassName": "nginx", "intervalSeconds": 5}}
    assert built(upgrade=wanted)["spec"]["upgradeStrategy"] == {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {
            "gatewayClassName": "nginx",
            "stepSizePercent": 25,
            "intervalSeconds": 5,
            "maxSurgePercent": 100,
        },
    }


@pytest.mark.parametrize(
    ("spec", "bounds"),
    [
        ({"replicas": {"max": 4}}, [(1, 4)]),
        ({"replicas": {"min": 0, "max": 4}}, [(0, 4)]),
        ({"replicas": {"min": 3, "max": 5}, "workerGroups": [{"name": "a", "gpusPerWorker": 2}]}, [(2, 3)]),
        ({"replicas": {"max": 4}, "replicasPerGpu": 2}, [(1, 2)]),
        ({"replicas": {"max": 4}, "gpusPerReplica": 0}, [(1, 4)]),
        (
            {
                "replicas": {"min": 2, "max": 4},
                "workerGroups": [
                    {"name": "a", "maxReplicas": 1},
                    {"name": "b", "minReplicas": 1, "maxReplicas": 3},
                ],
            },
            [(1, 1), (1, 3)],
        ),
        (
            {
                "replicas": {"min": 5, "max": 6},
                "workerGroups": [{"name": "spot", "maxReplicas": 4}, {"name": "on-demand", "maxReplicas": 2}],
            },
            [(4, 4), (1, 2)],
        ),
        ({"replicas": {"max": 2}, "workerGroups": [{"name": "warm", "minReplicas": 5}]}, [(5, 5)]),
    ],
)
def test_worker_bounds_follow_replicas(built, spec, bounds):
    found = groups(built(**spec, upgrade={"surgeWorkers": 0}))
    assert [(group["minReplicas"], group["maxReplicas"]) for group in found] == bounds


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        ({"replicas": {"max": 4}}, [5]),
        ({"replicas": {"max": 4}, "upgrade": {"surgeWorkers": 3}}, [7]),
        ({"replicas": {"max": 500}}, [505]),
        ({"replicas": {"max": 5}, "workerGroups": [{"name": "a", "gpusPerWorker": 2}]}, [4]),
        ({"replicas": {"max": 1}, "replicasPerGpu": 2}, [2]),
        ({"replicas": {"max": 4}, "workerGroups": [{"name": "a", "maxReplicas": 4}]}, [5]),
        ({"replicas": {"max": 4}, "workerGroups": [{"name": "a", "maxReplicas": 5}]}, [5]),
        (
            {
                "replicas": {"max": 4},
                "workerGroups": [{"name": "a", "maxReplicas": 2}, {"name": "b"}, {"name": "c"}],
            },
            [2, 5, 4],
        ),
        (
            {
                "replicas": {"max": 4},
                "workerGroups": [{"name": "a", "maxReplicas": 2}, {"name": "b", "maxReplicas": 2}],
            },
            [3, 2],
        ),
    ],
    ids=[
        "one",
        "three",
        "one percent",
        "two GPUs",
        "shared GPU",
        "no room",
        "room",
        "no ceiling",
        "ceilings",
    ],
)
def test_a_replacement_has_room_for_a_worker_more_than_replicas_max(built, spec, most):
    assert [group["maxReplicas"] for group in groups(built(**spec))] == most


def test_groups_are_preferred_in_their_order(built):
    found = groups(built(workerGroups=[{"name": "a"}, {"name": "b"}]))
    assert [group["priority"] for group in found] == [8, 7]
    assert built()["spec"]["rayClusterConfig"]["autoscalerOptions"]["version"] == "v2"


def test_the_sidecar_of_the_autoscaler_is_as_restricted_as_ray(built):
    """KubeRay adds it without a security context of its own."""
    cluster = built()["spec"]["rayClusterConfig"]
    (ray,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert cluster["autoscalerOptions"]["securityContext"] == ray["securityContext"]


def test_a_group_that_is_appended_changes_no_other(built):
    """So KubeRay adds it to the running cluster; any difference in the others would be a new one."""
    one, both = (
        groups(built(workerGroups=given)) for given in ([{"name": "a"}], [{"name": "a"}, {"name": "b"}])
    )
    assert both[:1] == one


def test_worker_offers_one_cpu_slot_per_replica(built):
    found = groups(built(workerGroups=[{"name": "a", "gpusPerWorker": 4}]))
    assert found[0]["rayStartParams"] == {"num-cpus": "4", "num-gpus": "4"}


def test_a_slice_of_a_gpu_is_told_to_ray(built):
    """KubeRay would count only what a resource named `...gpu` gives."""
    (group,) = groups(built(gpuResourceName="nvidia.com/mig-1g.5gb"))
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/mig-1g.5gb"] == group["rayStartParams"]["num-gpus"] == "1"
    (cpu,) = groups(built(gpusPerReplica=0))
    assert cpu["rayStartParams"] == {"num-cpus": "1"}


def test_a_new_cluster_starts_at_the_floor(built):
    assert [group["replicas"] for group in groups(built(replicas={"min": 3, "max": 5}))] == [3]


def test_head_computes_nothing_and_is_reachable_at_zero(built):
    body = built(replicas={"min": 0, "max": 1})
    parameters = body["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]
    assert parameters["num-cpus"] == "0"
    assert json.loads(parameters["resources"].strip("'")) == {"sdservice-head": 1}
    assert "excludeHeadPodFromServeSvc" not in body["spec"], "false is what KubeRay writes nothing for"
    assert built()["spec"]["excludeHeadPodFromServeSvc"] is True


def test_token_authentication_is_on_with_our_secret(built):
    assert built()["spec"]["rayClusterConfig"]["authOptions"] == {
        "mode": "token",
        "secretName": "imagine-ray-token",
    }


def test_redis_password_is_a_reference(built):
    redis = {"address": "redis:6379", "passwordSecretRef": {"name": "redis", "key": "password"}}
    options = built(head={"redis": redis})["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    reference = {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}}
    assert options == {"redisAddress": "redis:6379", "redisPassword": reference}


def test_state_in_redis_may_be_said_either_way(built):
    redis = {"address": "redis:6379"}
    either = built(head={"faultTolerance": {"store": "redis", "redis": redis}})
    assert either == built(head={"redis": redis})


def test_state_on_a_volume_is_a_claim_of_each_cluster(built):
    volume = {"size": "2Gi", "storageClassName": "fast"}
    cluster = built(head={"faultTolerance": {"store": "volume", "volume": volume}})["spec"][
        "rayClusterConfig"
    ]
    assert cluster["gcsFaultToleranceOptions"] == {"backend": "rocksdb", "storage": volume}
    head, worker = (
        cluster["headGroupSpec"]["template"]["spec"],
        cluster["workerGroupSpecs"][0]["template"]["spec"],
    )
    assert head["securityContext"]["fsGroup"] == head["containers"][0]["securityContext"]["runAsUser"]
    assert "securityContext" not in worker


def test_a_state_volume_has_a_size_by_itself(built):
    cluster = built(head={"faultTolerance": {"store": "volume"}})["spec"]["rayClusterConfig"]
    assert cluster["gcsFaultToleranceOptions"]["storage"] == {"size": "1Gi"}


def test_serve_config_is_yaml(built):
    config = yaml.safe_load(built()["spec"]["serveConfigV2"])
    assert config["applications"][0]["name"] == "imagine"


def test_is_the_same_each_time(built):
    assert built(podLabels={"b": "1", "a": "2"}) == built(podLabels={"b": "1", "a": "2"})
