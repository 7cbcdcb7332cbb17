# SPDX-License-Identifier: Apache-2.0
"""Snapshot -> Ready, with Ray's own response available. test_status.py covers the cases with KubeRay's report alone."""

from datetime import timedelta

import pytest

from sd_operator import status
from sd_operator.api import Status
from sd_operator.api.status import Reason
from sd_operator.observe.application import needs_probe
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.snapshot import Application
from sd_operator.ray.serve_state import ServeState

NO_GPU = PodProblem(
    Reason.UNSCHEDULABLE, "worker pod w of group gpu", "0/3 nodes are available", "2026-01-02T03:00:00Z"
)
NOT_FOUND = "lines\nsd_runtime.errors.ModelNotFound: model.uri: got 'hf://a/b': there is no such repository"


@pytest.fixture
def ready(scene):
    return lambda *arguments, **more: scene.told("Ready", scene.snapshot(*arguments, **more))


@pytest.fixture
def zero(resource):
    return resource(replicas={"min": 0, "max": 2})


@pytest.mark.parametrize("state", ["RUNNING", "DEPLOYING"])
def test_running_replicas_serve_while_a_config_is_rolled_out(scene, ready, state):
    assert ready(serve=scene.serve(state, model=2, target=4)) == ("True", "Serving")


@pytest.mark.parametrize("state", ["DEPLOY_FAILED", "UNHEALTHY"])
def test_replicas_that_still_answer_are_degraded_not_gone(scene, state):
    snapshot = scene.snapshot(serve=scene.serve(state, model=3, target=4, message="ValueError: one is sick"))
    found = scene.conditions(snapshot)["Ready"]
    assert (found.status, found.reason) == ("True", "Degraded")
    assert found.message == (
        "RayCluster imagine-abcde serves requests. 3 of 4 replicas answer, and the application is"
        f" {state}: ValueError: one is sick"
    )


@pytest.mark.parametrize("state", ["DEPLOY_FAILED", "UNHEALTHY"])
def test_a_second_cluster_that_fails_is_a_change_that_failed(scene, state):
    view = scene.but(
        scene.view, pending="imagine-new", pending_application=Application(state, "no such model")
    )
    found = scene.conditions(scene.snapshot(view, serve=scene.serve()))["Ready"]
    assert (found.status, found.reason) == ("True", "Degraded")
    assert found.message == (
        "RayCluster imagine-abcde serves requests. The last change failed, so the former version stays in use."
        f" The application of RayCluster imagine-new is {state}: no such model"
    )


def test_no_replica_is_not_ready_whatever_kuberay_says(scene, ready):
    assert ready(serve=scene.serve("RUNNING", model=0, target=1)) == ("False", "NoReplicas")
    assert ready(serve=scene.serve("RUNNING", model=1, ingress=0)) == ("False", "NoReplicas")


def test_replicas_without_a_ready_pod_are_not_reached(scene, ready):
    pods = (scene.head, scene.but(scene.worker, ready=False))
    assert ready(serve=scene.serve(), pods=pods) == ("False", "NoEndpoints")


def test_a_new_head_without_the_application_is_not_ready(scene, ready):
    """KubeRay still shows the RUNNING of the former head."""
    assert ready(serve=ServeState("NOT_STARTED")) == ("False", "ApplicationDeploying")


def test_a_head_that_misses_a_probe_and_answers_us_is_there(scene, ready):
    pods = (scene.but(scene.head, ready=False), scene.worker)
    assert ready(serve=scene.serve(), pods=pods) == ("True", "Serving")
    assert ready(serve=scene.stale(scene.serve()), pods=pods) == ("False", "HeadNotReady")
    leaving = (scene.but(scene.head, ready=False, running=False), scene.worker)
    assert ready(serve=scene.serve(), pods=leaving) == ("False", "HeadNotReady")


@pytest.fixture
def unheard(scene):
    """Scenes in which Ray leaves open whether requests are answered, by name; a worker is ready in each."""
    told = scene.but(scene.view, active_application=Application("DEPLOY_FAILED", "ModuleNotFoundError: nope"))
    unready = scene.but(scene.head, ready=False, uid="head-2")
    return {
        "no head": scene.snapshot(pods=(scene.worker,)),
        "head not ready": scene.snapshot(pods=(unready, scene.worker)),
        "a head that fell silent": scene.snapshot(
            pods=(unready, scene.worker), serve=scene.stale(scene.serve())
        ),
        "new head": scene.snapshot(serve=ServeState("NOT_STARTED")),
        "another version is built": scene.snapshot(serve=ServeState("DEPLOYING")),
        "another version could not be built": scene.snapshot(
            serve=ServeState("DEPLOY_FAILED", "ValueError: x")
        ),
        "by KubeRay's word": scene.snapshot(told),
    }


UNHEARD = [
    ("no head", "HeadNotReady"),
    ("head not ready", "HeadNotReady"),
    ("a head that fell silent", "HeadNotReady"),
    ("new head", "ApplicationDeploying"),
    ("another version is built", "ApplicationDeploying"),
    ("another version could not be built", "ApplicationFailed"),
    ("by KubeRay's word", "ApplicationFailed"),
]


@pytest.mark.parametrize(("name", "otherwise"), UNHEARD, ids=[name for name, _ in UNHEARD])
def test_where_ray_leaves_it_open_the_services_own_word_counts(scene, unheard, name, otherwise):
    snapshot = unheard[name]
    assert needs_probe(snapshot)
    assert scene.told("Ready", snapshot) == ("False", otherwise)
    assert scene.told("Ready", scene.but(snapshot, answers=True)) == ("True", "Degraded")


def test_the_services_own_word_hides_no_cause(scene, unheard):
    found = scene.conditions(scene.but(unheard["no head"], answers=True))["Ready"]
    assert found.message == (
        "Replicas in RayCluster imagine-abcde still answer."
        " The head pod of RayCluster imagine-abcde is gone or not ready."
    )
    failed = scene.but(unheard["another version could not be built"], answers=True)
    assert scene.conditions(failed)["Ready"].message == (
        "Replicas in RayCluster imagine-abcde still answer. The Serve application is DEPLOY_FAILED: ValueError: x"
    )


@pytest.mark.parametrize("name", [name for name, _ in UNHEARD])
@pytest.mark.parametrize(
    "worker", [{"ready": False}, {"in_service": False}, {"cluster": "imagine-other"}], ids=str
)
def test_a_service_without_a_worker_that_takes_requests_is_not_asked(scene, unheard, name, worker):
    pods = [pod if pod.is_head else scene.but(pod, **worker) for pod in unheard[name].pods]
    assert not needs_probe(scene.but(unheard[name], pods=tuple(pods)))


def test_a_service_is_not_asked_what_ray_tells_or_what_nobody_wants_to_know(scene):
    unready = (scene.but(scene.head, ready=False), scene.worker)
    told = {
        "counted": scene.snapshot(serve=scene.serve()),
        "counted, and none left": scene.snapshot(serve=scene.serve(model=0, target=1)),
        "counted a moment ago": scene.snapshot(serve=scene.stale(scene.serve())),
        "counted by a head that misses a probe": scene.snapshot(serve=scene.serve(), pods=unready),
        "by KubeRay's word": scene.snapshot(),
        "not serving yet": scene.snapshot(scene.but(scene.view, active="", pending=scene.cluster)),
    }
    assert {name for name, snapshot in told.items() if needs_probe(snapshot)} == set()


def test_a_cluster_that_has_just_taken_over_serves_by_the_services_own_word(scene):
    """KubeRay counts its endpoints a pass later."""
    snapshot = scene.snapshot(scene.but(scene.view, endpoints=0), serve=scene.serve())
    assert needs_probe(snapshot)
    assert scene.told("Ready", snapshot) == ("False", "NoEndpoints")
    assert scene.told("Ready", scene.but(snapshot, answers=True)) == ("True", "Serving")


def test_suspended_is_suspended_though_replicas_answer_for_a_moment(scene, resource):
    snapshot = scene.snapshot(pods=(scene.worker,), answers=True)
    assert scene.told("Ready", snapshot, resource(suspend=True)) == ("False", "Suspended")


def test_silence_of_the_dashboard_flips_nothing_and_its_age_is_told(scene):
    snapshot = scene.snapshot(serve=scene.stale(scene.serve()))
    found = scene.conditions(snapshot)["Ready"]
    assert (found.status, found.reason) == ("True", "Serving")
    assert found.message == (
        "RayCluster imagine-abcde serves requests, as Ray reported at 2026-01-02T03:04:05Z; Ray has not answered since."
    )


def test_kuberays_word_beats_what_is_remembered(scene):
    """Counts stay as remembered, the status is newer."""
    view = scene.but(scene.view, active_application=Application("UNHEALTHY", "sick"))
    assert scene.told("Ready", scene.snapshot(view, serve=scene.stale(scene.serve(model=2)))) == (
        "True",
        "Degraded",
    )


def test_the_active_cluster_is_asked_while_kuberay_does_not_tell_of_it(scene, ready):
    upgrading = scene.but(scene.view, active_application=Application(), pending="imagine-new", upgrading=True)
    assert ready(upgrading, serve=scene.serve()) == ("True", "Serving")
    assert ready(upgrading, serve=scene.serve(model=0, target=1)) == ("False", "NoReplicas")


def test_a_pods_trouble_is_the_reason(scene):
    pods = (scene.head, scene.but(scene.worker, ready=False, problem=NO_GPU))
    found = scene.conditions(scene.snapshot(serve=scene.serve(model=0, target=1), pods=pods))["Ready"]
    assert (found.status, found.reason) == ("False", "Unschedulable")
    assert found.message == (
        "No replica of the model accepts requests: worker pod w of group gpu, since 2026-01-02T03:00:00Z:"
        " 0/3 nodes are available"
    )


def test_the_models_trouble_is_the_reason(scene, ready):
    failed = scene.serve("DEPLOY_FAILED", model=0, target=1, message=NOT_FOUND)
    assert ready(serve=failed) == ("False", "ModelNotFound")
    starting = scene.but(scene.view, active="", pending=scene.cluster, endpoints=0)
    assert ready(starting, serve=failed) == ("False", "ModelNotFound")


def test_one_pod_in_many_that_restarts_does_not_blink(scene, ready):
    pods = (scene.head, scene.worker, scene.but(scene.worker, ready=False, problem=NO_GPU))
    assert ready(serve=scene.serve(model=1, target=2), pods=pods) == ("True", "Serving")


def test_at_zero_the_limits_are_told(scene, zero):
    found = scene.conditions(scene.snapshot(pods=(scene.head,), serve=scene.serve(model=0, spec=zero)), zero)[
        "Ready"
    ]
    assert (found.status, found.reason) == ("True", "ScaledToZero")
    assert "The next request waits up to 600 s (limits.coldStartTimeoutSeconds)" in found.message
    assert "then it is answered with 503." in found.message


def test_waking_is_ready_until_a_held_request_would_be_given_up(scene, zero):
    waking = scene.serve(model=0, target=1, spec=zero)
    pods = (scene.head, scene.but(scene.worker, ready=False, problem=NO_GPU))
    snapshot = scene.snapshot(pods=pods, serve=waking)
    assert scene.told("Ready", snapshot, zero) == ("True", "Waking")
    later = scene.now + timedelta(seconds=600)
    assert scene.told("Ready", snapshot, zero, later) == ("False", "Unschedulable")


def test_waking_in_vain_is_not_ready(scene, zero):
    failed = scene.serve("DEPLOY_FAILED", model=0, target=1, message=NOT_FOUND, spec=zero)
    assert scene.told("Ready", scene.snapshot(pods=(scene.head,), serve=failed), zero) == (
        "False",
        "ModelNotFound",
    )


def test_at_zero_without_an_ingress_nothing_holds_a_request(scene, zero):
    state = scene.serve(model=0, ingress=0, spec=zero)
    assert scene.told("Ready", scene.snapshot(pods=(scene.head,), serve=state), zero) == (
        "False",
        "NoReplicas",
    )


def test_replicas_are_rays_own_counts(scene, resource):
    spec = resource(replicas={"min": 1, "max": 8})
    snapshot = scene.snapshot(serve=scene.serve("RUNNING", model=3, target=5))
    computed = status.compute(spec, snapshot, "image:1", Status(), scene.now)
    assert computed.replicas.summary == "3/5 (1-8)"
