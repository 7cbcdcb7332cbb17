# SPDX-License-Identifier: Apache-2.0
"""`Accepted` reports a spec that is refused. All other conditions describe the children of an earlier spec."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sd_operator import status
from sd_operator.api import Status
from sd_operator.builders.ray_service import ray_service
from sd_operator.errors import (
    InvalidResource,
    KubeRayMissing,
    KubeRayTooOld,
    NameConflict,
    Problem,
    Refused,
    WaitingForDeletion,
)
from sd_operator.naming import Key
from sd_operator.observe.effective_spec import of_ray_service
from sd_operator.observe.preload_state import ImageState, PreloadState
from sd_operator.settings import Settings

NODES = frozenset({"gpu-0", "gpu-1"})
PRELOAD = PreloadState((ImageState("r/i:1", NODES, NODES),))
BROKEN = InvalidResource("imagine", (Problem("spec.a", "1", "must be 2"),))
ERRORS = [
    (BROKEN, "Invalid"),
    (NameConflict("taken"), "NameConflict"),
    (WaitingForDeletion("going"), "WaitingForDeletion"),
    (KubeRayMissing("no KubeRay"), "KubeRayMissing"),
    (KubeRayTooOld("old"), "KubeRayTooOld"),
    (Refused("quota"), "Refused"),
]


def refusal(error, asked=None):
    return status.Refusal(Key("team", "imagine"), 4, status.not_accepted(error), asked)


@pytest.fixture
def before(resource, scene):
    """The status while the earlier spec, of generation 3, was in force."""
    snapshot = scene.snapshot(preload=PRELOAD)
    return status.compute(resource(), snapshot, "image:1", Status(), scene.now)


@pytest.fixture
def refused(resource, scene, before):
    """The status of a refused spec beside what the earlier one left running."""

    def compute(error=BROKEN, asked=None, snapshot=None, **earlier):
        effective = of_ray_service(ray_service(resource(**earlier), Settings()), preloads=True)
        snapshot = snapshot or scene.snapshot(preload=PRELOAD)
        later = scene.now + timedelta(hours=1)
        return status.refused(refusal(error, asked), (effective, snapshot), before, later)

    return compute


def told(computed):
    return {each.type: (each.status, each.reason) for each in computed.conditions}


@pytest.mark.parametrize(("error", "reason"), ERRORS, ids=[reason for _, reason in ERRORS])
def test_what_serves_goes_on_being_ready(refused, before, error, reason):
    after = refused(error)
    assert told(after) == told(before) | {
        "Accepted": ("False", reason),
        "ConfigApplied": ("False", reason),
    }
    found = {each.type: each for each in after.conditions}
    assert found["Accepted"].message == str(error)
    assert {each.observed_generation for each in after.conditions} == {after.observed_generation} == {4}
    assert found["Ready"].last_transition_time == "2026-01-02T03:04:05Z", "it did not flip"
    assert found["Accepted"].last_transition_time == "2026-01-02T04:04:05Z"
    same = {"url", "replicas", "selector", "workers", "preload", "model", "active_ray_cluster"}
    assert after.model_dump(include=same) == before.model_dump(include=same)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pods": lambda scene: (scene.worker,)}, "HeadNotReady"),
        ({"view": lambda scene: scene.but(scene.view, endpoints=0)}, "NoEndpoints"),
        ({"serve": lambda scene: scene.serve(model=0, target=1)}, "NoReplicas"),
        ({"view": lambda scene: scene.but(scene.view, active="", suspended=True)}, "Suspended"),
    ],
    ids=["head", "endpoints", "replicas", "suspended"],
)
def test_what_is_lost_is_told_although_the_spec_is_refused(scene, refused, change, reason):
    after = refused(snapshot=scene.snapshot(**{key: make(scene) for key, make in change.items()}))
    assert told(after)["Ready"] == ("False", reason)
    assert told(after)["Accepted"] == ("False", "Invalid")


def test_the_spec_in_force_decides_and_not_the_refused_one(resource, scene, refused):
    """One that asks for less than what runs, and is not acted on."""
    asked = resource(suspend=True, replicas={"min": 0, "max": 9}).spec
    after = refused(NameConflict("taken"), asked)
    assert told(after)["Ready"] == ("True", "Serving")
    assert told(after)["Suspended"] == ("False", "Running")
    assert after.replicas.summary == "1/1 (1-1)"
    nobody = scene.snapshot(pods=(scene.head,))
    assert told(refused(snapshot=nobody))["Ready"] == ("False", "NoEndpoints")
    assert told(refused(snapshot=nobody, replicas={"min": 0, "max": 1}))["Ready"] == ("True", "ScaledToZero")


def test_a_config_that_runs_already_is_applied_whatever_else_is_refused(resource, refused):
    assert told(refused(Refused("quota"), resource().spec))["ConfigApplied"][0] == "True"
    other = resource(limits={"maxSteps": 7}).spec
    assert told(refused(Refused("quota"), other))["ConfigApplied"] == ("False", "Refused")


@pytest.mark.parametrize(("error", "reason"), ERRORS, ids=[reason for _, reason in ERRORS])
def test_without_a_ray_service_of_ours_nothing_serves(scene, before, error, reason):
    for previous in (Status(), before):
        after = status.refused(refusal(error), None, previous, scene.now)
        assert told(after) == {"Ready": ("False", reason), "Accepted": ("False", reason)}
        assert (after.replicas, after.workers, after.ray_service, after.active_ray_cluster) == (None, (), None, None)  # fmt: skip
        assert after.url == previous.url


def test_what_may_not_be_read_is_unknown_and_the_rest_as_last_told(scene, before):
    after = status.unseen(refusal(Refused("no DaemonSets")), "no RayServices", before, scene.now)
    assert told(after) == told(before) | {"Ready": ("Unknown", "Refused"), "Accepted": ("False", "Refused")}
    assert after.conditions[0].message == "The operator cannot read what runs: no RayServices"
    assert [each.observed_generation for each in after.conditions] == [4, 4, 3, 3, 3, 3, 3, 3]
    assert after.replicas == before.replicas
    assert status.requeue_seconds(after) == 30


@pytest.mark.parametrize(
    ("error", "lost", "seconds"),
    [
        (BROKEN, False, None),
        (BROKEN, True, 30),
        (NameConflict("taken"), False, 30),
        (WaitingForDeletion("going"), False, 3),
        (Refused("quota"), False, 30),
    ],
)
def test_when_it_is_looked_at_again(scene, refused, error, lost, seconds):
    snapshot = scene.snapshot(pods=(scene.worker,)) if lost else None
    assert status.requeue_seconds(refused(error, snapshot=snapshot)) == seconds


def test_nothing_to_look_at_waits_for_an_edit(scene):
    assert status.requeue_seconds(status.refused(refusal(BROKEN), None, Status(), scene.now)) is None


def test_nothing_changed_is_nothing_to_write(resource, scene, refused):
    first = refused()
    effective = of_ray_service(ray_service(resource(), Settings()), preloads=True)
    snapshot = scene.snapshot(preload=PRELOAD)
    later = scene.now + timedelta(days=1)
    assert status.refused(refusal(BROKEN), (effective, snapshot), first, later) == first
    assert status.refused(refusal(BROKEN), (replace(effective, low=0), snapshot), first, later) != first
