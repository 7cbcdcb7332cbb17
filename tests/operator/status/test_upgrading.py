# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from itertools import count

import pytest

from sd_operator.api.status import Reason
from sd_operator.observe.effective_spec import of_spec
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.snapshot import Application, PodView, RayServiceView, Snapshot
from sd_operator.observe.upgrade_progress import UpgradeState, upgrade_state
from sd_operator.status.conditions import accepted
from sd_operator.status.upgrading import upgrading

SERVING = RayServiceView(
    up_to_date=True,
    since="2026-01-01T00:00:00Z",
    active="imagine-old",
    active_application=Application("RUNNING"),
    endpoints=1,
)
BOTH = replace(SERVING, pending="imagine-new", upgrading=True)


@pytest.fixture
def told(resource):
    def tell(view, state=None, pods=(), **spec):
        snapshot = Snapshot(view, pods=tuple(pods), upgrade=state or UpgradeState())
        state = upgrading(of_spec(resource(**spec).spec, "image:1"), snapshot)
        return state.status, state.reason, state.message

    return tell


def test_one_cluster_that_is_as_wanted_is_up_to_date(told):
    assert told(SERVING)[:2] == ("False", "UpToDate")
    assert told(None)[:2] == ("False", "UpToDate")


def test_a_second_cluster_is_named(told):
    state, reason, message = told(BOTH)
    assert (state, reason) == ("True", "NewClusterStarting")
    assert "imagine-new is starting" in message
    assert "imagine-old serves until then" in message


def test_a_second_cluster_that_fails_says_so_and_who_serves(told):
    view = replace(BOTH, pending_application=Application("DEPLOY_FAILED", "out of memory"))
    state, reason, message = told(view)
    assert (state, reason) == ("True", "UpgradeFailed")
    assert "out of memory" in message
    assert "imagine-old continues to serve. Fix the spec, or revert the change." in message


NUMBERS = count()


def worker(words="", cluster="imagine-new", reason=Reason.UNSCHEDULABLE, **more):
    """A worker that waits since a second later than the one before it."""
    since = f"2026-01-01T00:00:{next(NUMBERS):02}Z"
    problem = PodProblem(reason, "worker pod", words, since) if words else None
    return PodView(cluster, "gpu", is_head=False, ready=not words, problem=problem, **more)


NO_GPU = "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu."


def test_workers_of_the_second_cluster_that_find_no_gpu_are_counted(told):
    first = worker(NO_GPU)
    state, reason, message = told(BOTH, pods=[worker(), first, worker(NO_GPU), worker()])
    assert (state, reason) == ("True", "ShortOfGpus")
    since = first.problem.since
    assert f"No node has had enough nvidia.com/gpu for 2 of its 4 worker pods since {since}." in message
    assert "imagine-old serves until then" in message


def test_other_names_of_gpus_are_read_as_well(told):
    told_of = told(BOTH, pods=[worker("0/1 nodes are available: 1 Insufficient gpu.intel.com/i915.")])
    assert told_of[1] == "ShortOfGpus"
    assert "enough gpu.intel.com/i915 for 1 of its 1 worker pods since" in told_of[2]


@pytest.mark.parametrize(
    "pod",
    [
        worker("0/3 nodes are available: 3 Insufficient memory."),
        worker("0/3 nodes are available: 3 node(s) had untolerated taint {nvidia.com/gpu: present}."),
        worker(NO_GPU, cluster="imagine-old"),
        worker(NO_GPU, reason=Reason.IMAGE_PULL_FAILED),
        replace(worker(NO_GPU), is_head=True),
    ],
    ids=["memory", "taint", "of the first cluster", "another trouble", "the head"],
)
def test_what_waits_for_something_else_is_no_shortage_of_gpus(told, pod):
    assert told(BOTH, pods=[pod])[1] == "NewClusterStarting"


def test_traffic_that_moves_in_steps_is_counted(told):
    assert "imagine-new receives 25 % of the requests" in told(BOTH, UpgradeState(traffic_percent=25))[2]


def test_what_in_place_only_leaves_out_is_named(told):
    behind = UpgradeState(behind="headGroupSpec.template.spec.containers[ray-head].image")
    state, reason, message = told(SERVING, behind, upgrade={"strategy": "InPlaceOnly"})
    assert (state, reason) == ("False", "ChangesIgnored")
    assert "containers[ray-head].image" in message
    assert "Only the serving configuration of the spec is applied to them." in message


def test_a_change_that_kuberay_has_not_seen_yet_is_on_its_way(told):
    behind = UpgradeState(behind="rayVersion")
    assert told(SERVING, behind)[:2] == ("True", "NewClusterStarting")
    steps = {"strategy": "Incremental", "incremental": {"gatewayClassName": "istio"}}
    assert "RayServiceIncrementalUpgrade" in told(SERVING, behind, upgrade=steps)[2]


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("v1.7.0", "Accepted"),
        ("v1.10.2", "Accepted"),
        ("nightly", "Accepted"),
        ("", "Accepted"),
        ("v1.6.2", "KubeRayTooOld"),
    ],
)
def test_an_old_kuberay_is_not_accepted(resource, version, reason):
    snapshot = Snapshot(SERVING, upgrade=UpgradeState(kuberay=version))
    assert accepted(of_spec(resource().spec, "image:1"), snapshot).reason == reason


def test_state_is_read_from_the_cluster_that_serves():
    status = {
        "activeServiceStatus": {"rayClusterName": "old"},
        "pendingServiceStatus": {"rayClusterName": "new", "trafficRoutedPercent": 30},
    }
    wanted = {"headGroupSpec": {"template": {"spec": {}}}, "workerGroupSpecs": [], "rayVersion": "2"}
    annotations = {"ray.io/kuberay-version": "v1.7.0", "sdservice.dev/cluster-config": "other"}
    active = {"metadata": {"annotations": annotations}, "spec": {**wanted, "rayVersion": "1"}}
    made_of = {"sdservice.dev/cluster-config": "this"}
    service = {"metadata": {"annotations": made_of}, "spec": {"rayClusterConfig": wanted}, "status": status}
    assert upgrade_state(service, active) == UpgradeState("rayVersion", 30, "v1.7.0")
    assert upgrade_state(None, active) == UpgradeState()
