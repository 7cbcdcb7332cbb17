# SPDX-License-Identifier: Apache-2.0
import math

import pytest

from sd_operator.api.capacity import most_replicas
from sd_operator.builders.serve_config import live_config, runtime_config, serve_config


def deployment(spec, name):
    (application,) = serve_config(spec)["applications"]
    return next(each for each in application["deployments"] if each["name"] == name)


def test_replica_bounds_reach_serve(resource):
    scaling = deployment(resource(replicas={"min": 2, "max": 7}).spec, "model")["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (2, 7)


def test_autoscaling_reaches_serve(resource):
    wanted = {"targetOngoingRequests": 3, "upscaleDelaySeconds": 1, "downscaleDelaySeconds": 2}
    scaling = deployment(resource(autoscaling=wanted).spec, "model")["autoscaling_config"]
    assert scaling | {"target_ongoing_requests": 3, "upscale_delay_s": 1, "downscale_delay_s": 2} == scaling


@pytest.mark.parametrize(
    ("spec", "target"),
    [
        ({}, 8),
        ({"batching": {"maxBatchSize": 32}}, 32),
        ({"batching": {"maxBatchSize": 32}, "autoscaling": {"upscaleDelaySeconds": 1}}, 32),
        ({"batching": {"maxBatchSize": 32}, "autoscaling": {"targetOngoingRequests": 3}}, 3),
    ],
    ids=str,
)
def test_a_batch_is_full_before_a_replica_is_added(resource, spec, target):
    model = deployment(resource(**spec).spec, "model")
    assert model["autoscaling_config"]["target_ongoing_requests"] == target
    batch = model["user_config"]["batching"]["max_batch_size"]
    assert model["max_ongoing_requests"] == 2 * batch, "the next batch waits at the replica"


@pytest.mark.parametrize(
    ("per_replica", "per_gpu", "share"),
    [(1, 1, 1), (0, 1, 0), (1, 2, 0.5), (1, 3, 0.3333), (1, 8, 0.125)],
)
def test_gpu_share(resource, per_replica, per_gpu, share):
    spec = resource(gpusPerReplica=per_replica, replicasPerGpu=per_gpu).spec
    assert deployment(spec, "model")["ray_actor_options"]["num_gpus"] == share
    assert share * per_gpu <= max(1, per_replica)


@pytest.mark.parametrize("store", [{"store": "volume"}, {"store": "redis", "redis": {"address": "a:6379"}}])
def test_ingress_outlives_the_head_where_its_state_does(resource, store):
    spec = resource(head={"faultTolerance": store}).spec
    actor = deployment(spec, "ingress")["ray_actor_options"]
    assert actor["label_selector"] == {"ray.io/node-group": "!headgroup"}
    assert "label_selector" not in deployment(resource().spec, "ingress")["ray_actor_options"]


def test_ingress_needs_no_cpu_and_stays_on_the_head_only_at_zero(resource):
    assert deployment(resource().spec, "ingress")["ray_actor_options"] == {"num_cpus": 0}
    at_zero = resource(replicas={"min": 0, "max": 1}).spec
    assert "sdservice-head" in deployment(at_zero, "ingress")["ray_actor_options"]["resources"]
    assert live_config(at_zero)["scale_to_zero"] is True
    assert runtime_config(at_zero) == runtime_config(resource().spec)


def test_a_replica_that_goes_may_finish_its_longest_request(resource):
    """And the ingress also what waits for a replica to start."""
    spec = resource(limits={"timeoutSeconds": 500, "coldStartTimeoutSeconds": 900}).spec
    assert deployment(spec, "model")["graceful_shutdown_timeout_s"] == 510
    assert deployment(spec, "ingress")["graceful_shutdown_timeout_s"] == 1410
    short = resource(limits={"timeoutSeconds": 1}).spec
    assert deployment(short, "model")["graceful_shutdown_timeout_s"] == 30


@pytest.mark.parametrize(
    ("replicas", "groups", "per_gpu", "percent"),
    [
        (1, [{"name": "a"}], 1, 0),
        (1, [{"name": "a", "maxReplicas": 2}], 1, 100),
        (4, [{"name": "a", "maxReplicas": 5}], 1, 25),
        (4, [{"name": "a", "maxReplicas": 9}], 1, 100),
        (3, [{"name": "a", "maxReplicas": 2}, {"name": "b", "maxReplicas": 2}], 1, 33),
        (1, [{"name": "a"}], 2, 100),
    ],
    ids=["no place", "one more", "a quarter", "plenty", "groups together", "a shared GPU"],
)
def test_new_replicas_come_first_where_workers_hold_more_than_replicas_max(
    resource, replicas, groups, per_gpu, percent
):
    spec = resource(
        replicas={"min": 1, "max": replicas},
        workerGroups=groups,
        replicasPerGpu=per_gpu,
        gpusPerReplica=1,
        upgrade={"surgeWorkers": 0},
    ).spec
    assert deployment(spec, "model")["max_surge_percent"] == percent
    assert deployment(spec, "ingress")["max_surge_percent"] == 100


@pytest.mark.parametrize("most", [1, 2, 4, 99, 100, 101, 250, 1000])
def test_by_default_a_new_replica_comes_first_and_finds_room_at_any_load(resource, most):
    """Serve rounds its percentage of the running replicas up."""
    spec = resource(replicas={"min": 1, "max": most}).spec
    percent, room = deployment(spec, "model")["max_surge_percent"], most_replicas(spec) - most
    assert percent > 0
    assert all(math.ceil(percent * running / 100) <= room for running in range(1, most + 1))


def test_replacing_in_place_changes_the_surge_alone(resource):
    spec = resource().spec
    surging, in_place = serve_config(spec), serve_config(spec, in_place=True)
    (model,) = (each for each in in_place["applications"][0]["deployments"] if each["name"] == "model")
    assert model.pop("max_surge_percent") == 0
    (before,) = (each for each in surging["applications"][0]["deployments"] if each["name"] == "model")
    assert before.pop("max_surge_percent") == 100
    assert surging == in_place


def test_queue_bound_is_serves_own(resource):
    spec = resource(limits={"maxQueuedRequests": 9}).spec
    assert deployment(spec, "model")["max_queued_requests"] == 9
    assert "max_queued_requests" not in live_config(spec)["limits"]


def test_limits_batching_and_defaults_are_live(resource):
    spec = resource(limits={"maxSteps": 30}, batching={"maxBatchSize": 2}, defaults={"steps": 9}).spec
    live = live_config(spec)
    assert live["limits"]["max_steps"] == 30
    assert live["batching"]["max_batch_size"] == 2
    assert live["defaults"]["steps"] == 9
    assert runtime_config(spec) == runtime_config(resource().spec)


def test_replica_takes_more_requests_than_one_batch(resource):
    spec = resource(batching={"maxBatchSize": 16}).spec
    assert deployment(spec, "model")["max_ongoing_requests"] > 16


def test_loras_switches_and_warm_up_restart_replicas(resource):
    lora = {"name": "ink", "uri": "hf://owner/name/ink.safetensors", "revision": "0" * 40, "strength": 0.8}
    spec = resource(
        model={"loras": [lora, {"name": "oil", "uri": "file:///oil"}]},
        optimizations={"fuseQkv": True},
        warmup={"shapes": [{"width": 64, "height": 128}]},
    ).spec
    args = runtime_config(spec)
    assert args["loras"] == [lora, {"name": "oil", "uri": "file:///oil", "strength": 1.0}]
    assert args["optimizations"]["fuse_qkv"] is True
    assert args["warmup"] == [{"width": 64, "height": 128}]
    assert live_config(spec) == live_config(resource().spec)


def test_provenance_and_result_cache_are_live(resource):
    spec = resource(provenance={"prompt": True}, resultCache={"maxMebibytes": 64}).spec
    assert live_config(spec)["provenance"] == {"prompt": True}
    assert live_config(spec)["result_cache"] == {"max_mebibytes": 64}
    assert runtime_config(spec) == runtime_config(resource().spec)
