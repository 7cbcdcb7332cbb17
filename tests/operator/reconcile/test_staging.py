# SPDX-License-Identifier: Apache-2.0
"""The parts of a change that apply now, and those that wait until nothing depends on the former value."""

from datetime import UTC, datetime, timedelta

import pytest

from sd_operator.api import Condition, Status
from sd_operator.builders.ray_service import ray_service
from sd_operator.reconcile.staging import in_place, removes_head, replaces_in_place, staged
from sd_operator.settings import Settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG = "sdservice.dev/cluster-config"


@pytest.fixture
def wanted(resource):
    """The RayService of a spec."""
    return lambda **spec: ray_service(resource(**spec), Settings())


def live(body, *, active="imagine-a", pending="", seen=True):
    """It, applied and taken up by KubeRay."""
    status = {"observedGeneration": 3 if seen else 2, "activeServiceStatus": {"rayClusterName": active}}
    status["pendingServiceStatus"] = {"rayClusterName": pending}
    return {**body, "metadata": {**body["metadata"], "uid": "rs", "generation": 3}, "status": status}


def cluster(body, name="imagine-a", **more):
    annotations = {CONFIG: body["metadata"]["annotations"][CONFIG]}
    owner = {"uid": "rs", "controller": True}
    return {"metadata": {"name": name, "annotations": annotations, "ownerReferences": [owner], **more}}


def pod(kind, name="imagine-a", **labels):
    found = {"ray.io/cluster": name, "ray.io/is-ray-node": "yes", "ray.io/node-type": kind, **labels}
    ready = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": kind, "labels": found}, "status": {"phase": "Running", "conditions": ready}}


def excludes(body):
    return body["spec"].get("excludeHeadPodFromServeSvc", False)


@pytest.fixture
def raised(wanted):
    """From zero to one: wanted, and the live RayService that has taken up everything else."""
    after = wanted(replicas={"min": 1, "max": 2})
    spec = {key: value for key, value in after["spec"].items() if key != "excludeHeadPodFromServeSvc"}
    before = live({**after, "spec": spec})
    return after, before


def test_a_new_service_is_applied_as_it_is(wanted):
    body = wanted()
    assert staged(body, None, [], []) is body
    assert not removes_head(body, None)


def test_the_head_leaves_the_service_once_a_worker_takes_requests(raised):
    after, before = raised
    assert removes_head(after, before)
    assert excludes(staged(after, before, [cluster(after)], [pod("head"), pod("worker")]))


@pytest.mark.parametrize(
    "pods",
    [[pod("head")], [pod("worker", "imagine-b")], [pod("worker", **{"ray.io/serve": "false"})], []],
    ids=["head alone", "worker of another cluster", "worker out of the Service", "no pod"],
)
def test_until_then_it_stays(raised, pods):
    after, before = raised
    assert not excludes(staged(after, before, [cluster(after)], pods))


@pytest.mark.parametrize(
    "state", ["another is starting", "another will start", "not taken up", "other config"]
)
def test_it_stays_while_the_serving_cluster_is_of_another_spec(raised, wanted, state):
    """That cluster may be at zero, with its ingress on the head, even if a worker is awake now."""
    after, before = raised
    made_from = wanted(sharedMemory="3Gi", replicas={"min": 0, "max": 2})
    clusters = [cluster(made_from if state == "another will start" else after)]
    if state == "another is starting":
        before = live(before, pending="imagine-b")
    elif state == "not taken up":
        before = live(before, seen=False)
    elif state == "other config":
        before = {**before, "spec": {**before["spec"], "serveConfigV2": "{}"}}
    assert not excludes(staged(after, before, clusters, [pod("head"), pod("worker")]))


def test_on_the_way_to_zero_the_head_joins_at_once(wanted):
    before, after = live(wanted()), wanted(replicas={"min": 0, "max": 1})
    assert not removes_head(after, before)
    assert not excludes(staged(after, before, [cluster(after)], []))


def delay(body):
    return body["spec"]["rayClusterDeletionDelaySeconds"]


def test_the_time_of_an_old_cluster_is_not_shortened_while_it_runs(wanted):
    zero, one = wanted(replicas={"min": 0, "max": 1}), wanted(sharedMemory="3Gi")
    assert delay(zero) > delay(one)
    before = live(zero)
    of_zero, of_one = cluster(zero), cluster(one, "imagine-b")
    assert delay(staged(one, before, [of_zero], [])) == delay(zero)
    assert delay(staged(one, before, [of_zero, of_one], [])) == delay(zero)
    leaving = cluster(zero, deletionTimestamp="2026-01-01T00:00:00Z")
    assert delay(staged(one, before, [leaving, of_one], [])) == delay(one)
    assert delay(staged(one, before, [], [])) == delay(one), "suspended"
    assert delay(staged(zero, live(one), [of_one], [])) == delay(zero)


def on_record(*, generation=3, reason="ApplicationDeploying", waiting="600", **other):
    """A rollout whose additional worker has found no node for so many seconds."""
    since = (NOW - timedelta(seconds=int(waiting))).strftime("%Y-%m-%dT%H:%M:%SZ")
    states = {"ConfigApplied": ("False", reason), "Schedulable": ("False", "Unschedulable"), **other}
    found = (
        Condition(
            type=kind,
            status=state,
            reason=why,
            message="",
            last_transition_time=since,
            observed_generation=generation,
        )
        for kind, (state, why) in states.items()
    )
    return Status(observed_generation=generation, conditions=tuple(found))


@pytest.fixture
def replaces(resource):
    def ask(before, live_body=None, **upgrade):
        asked = resource(upgrade=upgrade)
        body = ray_service(asked, Settings())
        return replaces_in_place(asked, body["spec"]["serveConfigV2"], live_body or live(body), before, NOW)

    return ask


def test_replicas_are_replaced_in_place_where_no_node_came_in_time(replaces):
    assert replaces(on_record())
    assert replaces(on_record(waiting="60"), surgeTimeoutSeconds=60)


@pytest.mark.parametrize(
    "before",
    [
        Status(),
        on_record(waiting="599"),
        on_record(generation=9),
        on_record(reason="ApplicationFailed"),
        on_record(ConfigApplied=("True", "ApplicationRunning")),
        on_record(Schedulable=("True", "Scheduled")),
        on_record(Upgrading=("True", "ShortOfGpus")),
    ],
    ids=["nothing known", "sooner", "an edit", "failed", "replaced", "a node came", "a second cluster"],
)
def test_else_a_new_one_comes_first(replaces, before):
    assert not replaces(before)


def test_without_additional_workers_there_is_nothing_to_wait_for(replaces):
    assert not replaces(on_record(), surgeWorkers=0)


def test_it_stays_so_until_the_serving_configuration_changes(resource, replaces):
    """Else each end of a replacement would be one more change, and one more generation."""
    before = resource()
    without = live(in_place(ray_service(before, Settings()), before.spec))
    assert replaces(Status(), without)
    assert not replaces(Status(), live(ray_service(resource(limits={"maxSteps": 9}), Settings())))
