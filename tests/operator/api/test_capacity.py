# SPDX-License-Identifier: Apache-2.0
"""Random specs: an accepted spec can reach replicas.max, and KubeRay refuses none of them."""

import pytest
from hypothesis import HealthCheck, assume, given, settings

from sd_operator.api import parse
from sd_operator.api.capacity import worker_bounds
from sd_operator.builders.ray_service import ray_service
from sd_operator.errors import InvalidResource
from sd_operator.settings import Settings
from sd_testkit.generators.random_specs import capacities, specs
from sd_testkit.kuberay.prechecks import problem

often = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def parsed(spec):
    identity = {"apiVersion": "sdservice.dev/v1alpha1", "kind": "StableDiffusionService"}
    return parse({**identity, "metadata": {"name": "imagine"}, "spec": spec})


def rendered(spec):
    """The RayService of a valid spec; an invalid one is passed over."""
    try:
        return ray_service(parsed(spec), Settings())
    except InvalidResource:
        assume(condition=False)


def placed(body, workers):
    """Replicas that Ray can place on a number of workers per group, by counting down their CPU slots and GPUs."""
    application = next(line for line in body["spec"]["serveConfigV2"].splitlines() if "num_gpus" in line)
    wanted = float(application.partition(":")[2])
    count = 0
    for group, number in zip(body["spec"]["rayClusterConfig"]["workerGroupSpecs"], workers, strict=True):
        parameters = group["rayStartParams"]
        cpus, gpus = int(parameters["num-cpus"]), float(parameters.get("num-gpus", 0))
        if wanted < 1:
            # Shares of one GPU do not spread over two.
            count += number * min(cpus, int(gpus) * int(1 / wanted)) if wanted else number * cpus
        else:
            count += number * min(cpus, int(gpus // wanted))
    return count


@often
@given(capacities())
def test_what_is_accepted_reaches_both_bounds(spec):
    body = rendered(spec)
    groups = body["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert all(0 <= group["minReplicas"] <= group["maxReplicas"] for group in groups)
    assert placed(body, [group["maxReplicas"] for group in groups]) >= spec["replicas"]["max"]
    if not any("minReplicas" in group for group in spec["workerGroups"]):
        assert placed(body, [group["minReplicas"] for group in groups]) >= spec["replicas"]["min"]


@often
@given(capacities())
def test_only_what_cannot_reach_replicas_max_is_refused_for_it(spec):
    """The rule against an oracle that packs one replica after the other."""
    size, shared = spec["gpusPerReplica"], spec["replicasPerGpu"]
    assume(shared == 1 or size == 1)
    groups = spec["workerGroups"]
    assume(all(group.get("minReplicas", 0) <= group.get("maxReplicas", 6) for group in groups))
    fits = all(
        (group.get("gpusPerWorker", size) >= size) if size else not group.get("gpusPerWorker")
        for group in groups
    )
    held = 0
    for group in groups:
        for _ in range(group.get("maxReplicas", 20)):
            free = group.get("gpusPerWorker", size) if size else 1
            while free >= max(size, 1):
                free -= max(size, 1)
                held += shared if size else 1
    reason = "" if fits and held >= spec["replicas"]["max"] else ("too small" if fits else "no replica fits")
    if not reason:
        parsed(spec)
        return
    with pytest.raises(InvalidResource, match=reason):
        parsed(spec)


@often
@given(specs())
def test_kuberay_refuses_nothing_that_we_render(spec):
    assert problem(rendered(spec)) is None


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda spec, _: spec["upgradeStrategy"].update(type="Rolling"), "is invalid"),
        (lambda spec, _: spec["upgradeStrategy"].update(type="NewClusterWithIncrementalUpgrade"), "required"),
        (lambda spec, _: spec.update(rayClusterDeletionDelaySeconds=-1), "non-negative"),
        (lambda _, cluster: cluster.update(rayVersion="2.55.0"), "priority"),
        (lambda _, cluster: cluster["autoscalerOptions"].pop("version"), "v2"),
        (lambda _, cluster: cluster["workerGroupSpecs"][0].update(minReplicas=9), "minReplicas"),
        (lambda _, cluster: cluster["workerGroupSpecs"][0].update(resources={"CPU": "1"}), "both"),
        (lambda _, cluster: cluster["headGroupSpec"]["rayStartParams"].update(labels="a=b"), "labels"),
        (
            lambda _, cluster: cluster["headGroupSpec"]["template"]["spec"].update(restartPolicy="Always"),
            "Never",
        ),
        (lambda _, cluster: cluster["authOptions"].update(enableK8sTokenAuth=True), "not supported"),
        (
            lambda _, cluster: cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"].append(
                {"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}
            ),
            "GcsFaultToleranceOptions",
        ),
    ],
)
def test_a_breach_would_be_noticed(resource, break_it, says):
    body = ray_service(resource(), Settings())
    break_it(body["spec"], body["spec"]["rayClusterConfig"])
    assert says in problem(body)


def test_floors_given_by_hand_count(resource):
    groups = [{"name": "a"}, {"name": "b", "minReplicas": 2}]
    bounds = worker_bounds(resource(replicas={"min": 3, "max": 4}, workerGroups=groups).spec)
    assert [each.low for each in bounds] == [1, 2]
