# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sd_operator import status
from sd_operator.api import Status
from sd_operator.api.status import Reason
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.preload_state import ImageState, PreloadState
from sd_operator.observe.snapshot import Application, PodView, RayServiceView, Snapshot

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUNNING = Application("RUNNING")
SERVING = RayServiceView(
    up_to_date=True,
    since="2026-01-01T00:00:00Z",
    active="imagine-abcde",
    active_application=RUNNING,
    endpoints=1,
)
HEAD = PodView("imagine-abcde", "headgroup", is_head=True, ready=True)
WORKER = PodView("imagine-abcde", "gpu", is_head=False, ready=True, in_service=True)
NODES = frozenset({"gpu-0", "gpu-1"})
OBSERVED = Snapshot(SERVING, (HEAD, WORKER), PreloadState((ImageState("r/i:1", NODES, NODES),)))


def conditions(resource, snapshot, previous=None, now=NOW):
    computed = status.compute(resource, snapshot, "image:1", previous or Status(), now)
    return {condition.type: condition for condition in computed.conditions}


def ready(resource, view=SERVING, pods=(HEAD, WORKER)):
    found = conditions(resource, Snapshot(view, pods))["Ready"]
    return found.status, found.reason


def test_all_is_well(resource):
    found = conditions(resource(), OBSERVED)
    assert {kind: (each.status, each.reason) for kind, each in found.items()} == {
        "Ready": ("True", "Serving"),
        "Accepted": ("True", "Accepted"),
        "ImagesPreloaded": ("True", "ImagesPresent"),
        "ModelAvailable": ("True", "ModelLoaded"),
        "ConfigApplied": ("True", "ApplicationRunning"),
        "Schedulable": ("True", "Scheduled"),
        "Upgrading": ("False", "UpToDate"),
        "Suspended": ("False", "Running"),
    }


def test_zero_endpoints_is_not_ready(resource):
    assert ready(resource(), replace(SERVING, endpoints=0)) == ("False", "NoEndpoints")


def test_failed_application_is_not_ready_whatever_kuberay_says(resource):
    failed = Application("DEPLOY_FAILED", "No module named 'nope'")
    view = replace(SERVING, active_application=failed)
    found = conditions(resource(), Snapshot(view, (HEAD, WORKER)))
    assert found["Ready"].reason == "ApplicationFailed"
    assert "No module named 'nope'" in found["Ready"].message
    assert found["ConfigApplied"].reason == "ApplicationFailed"


def test_lost_head_is_not_ready(resource):
    assert ready(resource(), pods=(WORKER,)) == ("False", "HeadNotReady")
    assert ready(resource(), pods=(replace(HEAD, ready=False), WORKER)) == ("False", "HeadNotReady")
    assert ready(resource(), pods=(replace(HEAD, cluster="imagine-other"), WORKER)) == (
        "False",
        "HeadNotReady",
    )


def test_starting_names_cluster_and_time(resource):
    view = RayServiceView(
        True, "2026-01-01T00:00:00Z", pending="imagine-new", pending_application=Application("DEPLOYING")
    )
    found = conditions(resource(), Snapshot(view))["Ready"]
    assert (found.status, found.reason) == ("False", "Starting")
    assert (
        found.message
        == "RayCluster imagine-new has been starting since 2026-01-01T00:00:00Z; the application is DEPLOYING."
    )


def test_old_cluster_serves_during_an_upgrade(resource):
    # KubeRay drops the active cluster's application status while both exist.
    view = replace(SERVING, active_application=Application(), pending="imagine-new", upgrading=True)
    found = conditions(resource(), Snapshot(view, (HEAD, WORKER)))
    assert found["Ready"].status == "True"
    assert found["Upgrading"].status == "True"
    assert found["ConfigApplied"].status == "False"


def test_kuberays_refusal_is_passed_on(resource):
    view = replace(SERVING, refused="headService.metadata.name should not be set")
    found = conditions(resource(), Snapshot(view, (HEAD, WORKER)))
    assert found["Accepted"].reason == "KubeRayRefused"
    assert "headService.metadata.name" in found["Accepted"].message
    assert found["Ready"].status == "True", "what KubeRay refuses changes nothing of what serves"
    new = replace(view, active="", endpoints=0)
    found = conditions(resource(), Snapshot(new))
    assert (found["Ready"].status, found["Ready"].reason) == ("False", "KubeRayRefused")


def test_at_zero_is_ready(resource):
    zero = resource(replicas={"min": 0, "max": 2})
    assert ready(zero, pods=(HEAD,)) == ("True", "ScaledToZero")
    assert ready(zero) == ("True", "Serving")


def test_suspended_is_not_ready(resource):
    view = RayServiceView(True, "", suspended=True)
    found = conditions(resource(suspend=True), Snapshot(view))
    assert (found["Ready"].status, found["Ready"].reason) == ("False", "Suspended")
    assert found["Suspended"].status == "True"
    assert conditions(resource(suspend=True), OBSERVED)["Suspended"].reason == "Suspending"


def test_config_is_not_applied_before_kuberay_has_seen_it(resource):
    assert (
        conditions(resource(), Snapshot(replace(SERVING, up_to_date=False), (HEAD,)))["ConfigApplied"].status
        == "False"
    )


def test_nothing_changed_computes_the_same_status(resource):
    first = status.compute(resource(), OBSERVED, "image:1", Status(), NOW)
    assert status.compute(resource(), OBSERVED, "image:1", first, NOW + timedelta(hours=1)) == first


def test_transition_time_moves_on_flips_only(resource):
    later = NOW + timedelta(hours=1)
    first = status.compute(resource(), OBSERVED, "image:1", Status(), NOW)
    lost = Snapshot(SERVING, (WORKER,), OBSERVED.preload)
    found = conditions(resource(), lost, previous=first, now=later)
    assert found["Ready"].last_transition_time == "2026-01-02T04:04:05Z"
    assert found["Accepted"].last_transition_time == "2026-01-02T03:04:05Z"


def test_replicas_are_counted_by_the_workers_that_hold_them(resource):
    shared = resource(replicas={"min": 2, "max": 6}, workerGroups=[{"name": "gpu", "gpusPerWorker": 2}])
    snapshot = Snapshot(SERVING, (HEAD, WORKER, replace(WORKER, ready=False)))
    computed = status.compute(shared, snapshot, "image:1", Status(), NOW)
    assert computed.replicas.summary == "2/4 (2-6)"
    assert [(each.group, each.ready, each.desired) for each in computed.workers] == [("gpu", 1, 2)]


def test_identity_of_what_serves(resource):
    computed = status.compute(resource(model={"preset": "sd15"}), OBSERVED, "image:1", Status(), NOW)
    assert computed.url == "http://imagine-serve-svc.team.svc:8000"
    assert computed.model.uri.startswith("hf://stable-diffusion-v1-5/")
    assert (computed.ray_service, computed.active_ray_cluster) == ("imagine", "imagine-abcde")
    assert computed.observed_generation == 3


def test_long_messages_are_clipped(resource):
    view = replace(SERVING, active_application=Application("DEPLOY_FAILED", "x" * 5000))
    assert len(conditions(resource(), Snapshot(view, (HEAD,)))["Ready"].message) == 1024


def look_again(resource, snapshot, now=NOW):
    return status.requeue_seconds(status.compute(resource, snapshot, "image:1", Status(), now))


def test_what_time_alone_may_change_is_looked_at_again(resource):
    waiting = PodProblem(Reason.UNSCHEDULABLE, "worker pod w", "no node", "2026-01-01T00:00:00Z")
    starting = RayServiceView(True, "2026-01-01T00:00:00Z", pending="imagine-new")
    assert look_again(resource(), Snapshot(starting)) == 30
    worker_waits = Snapshot(SERVING, (HEAD, WORKER, replace(WORKER, ready=False, problem=waiting)))
    assert look_again(resource(), worker_waits) == 30
    assert look_again(resource(), OBSERVED) is None
    upgrading = replace(SERVING, pending="imagine-new", upgrading=True)
    assert look_again(resource(), Snapshot(upgrading, (HEAD, WORKER))) == 30, "its head may wait for a node"
    assert look_again(resource(suspend=True), OBSERVED) is None
    refused = Snapshot(replace(starting, refused="no"))
    assert look_again(resource(), refused) is None, "only an edit changes it, and an edit is an event"


def test_events_are_asked_for_only_where_nothing_else_explains(resource):
    def is_unexplained(*pods):
        return status.is_unexplained(status.compute(resource(), Snapshot(SERVING, pods), "i", Status(), NOW))

    pull = PodProblem(Reason.IMAGE_PULL_FAILED, "worker pod w", "not found")
    assert is_unexplained(WORKER)
    assert is_unexplained(HEAD)
    assert not is_unexplained(HEAD, WORKER)
    assert not is_unexplained(HEAD, replace(WORKER, ready=False, problem=pull))


def test_pods_that_keep_ending_are_the_reason(resource):
    deaths = PodProblem(Reason.CRASH_LOOPING, "worker pods", "3 ended within 10 minutes")
    found = conditions(resource(), Snapshot(SERVING, (HEAD,), deaths=deaths))["Ready"]
    assert (found.status, found.reason) == ("False", "CrashLooping")
