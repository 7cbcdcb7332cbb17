# SPDX-License-Identifier: Apache-2.0
"""New pods after an operator change reach a few services at a time. Edits do not wait."""

import pytest

from sd_operator import status
from sd_operator.api import Condition, Status
from sd_operator.builders.ray_service import ray_service
from sd_operator.naming import Key
from sd_operator.observe.effective_spec import of_ray_service
from sd_operator.reconcile.rollout import PATIENCE_SECONDS, Rollout, concerns
from sd_operator.settings import Settings
from sd_operator.status.upgrading import waiting_for_others

A, B, C = (Key("team", name) for name in "abc")
OLD, NEW = Settings(runtime_tag="1"), Settings(runtime_tag="2")


def recorded(generation=3, reason="ApplicationRunning", kind="ConfigApplied", state="True"):
    told = Condition(
        type=kind,
        status=state,
        reason=reason,
        message="m",
        last_transition_time="2026-01-01T00:00:00Z",
        observed_generation=generation,
    )
    return Status(observed_generation=generation, conditions=(told,))


@pytest.fixture
def waits(resource):
    """Whether a change from one pair of spec and settings to another has to wait for its turn."""

    def ask(after=NEW, before=None, live=OLD, **spec):
        asked = resource(**spec)
        there = ray_service(resource(), live) if live else None
        return concerns(asked, ray_service(asked, after), there, before or recorded())

    return ask


def test_another_default_image_waits_for_its_turn(waits):
    assert waits()
    assert not waits(after=OLD), "nothing changes"
    assert not waits(live=None), "there is nothing yet that could go on serving"


def test_an_edit_does_not_wait(waits):
    assert not waits(before=recorded(generation=2))
    assert not waits(before=recorded(reason="WaitingForImages")), "an edit that waited for its image"


def test_what_does_not_serve_does_not_wait(waits):
    assert waits(before=recorded(kind="Ready", reason="Serving"))
    assert not waits(before=recorded(kind="Ready", state="False", reason="NoReplicas"))


def test_what_starts_no_second_cluster_does_not_wait(waits):
    assert not waits(suspend=True)
    assert not waits(upgrade={"strategy": "InPlaceOnly"})
    assert not waits(after=OLD, replicas={"min": 1, "max": 9}), "bounds are patched"


def test_one_after_the_other():
    rollout = Rollout(1)
    assert [rollout.ahead(key) for key in (A, B, A, C)] == [0, 1, 0, 1]
    rollout.through(B)
    assert rollout.ahead(C) == 1
    rollout.through(A)
    assert [rollout.ahead(key) for key in (C, B)] == [0, 1]


def test_several_at_once():
    rollout = Rollout(2)
    assert [rollout.ahead(key) for key in (A, B, C)] == [0, 0, 2]


def test_whoever_takes_too_long_is_passed_by():
    now = [0.0]
    rollout = Rollout(1, lambda: now[0])
    assert [rollout.ahead(key) for key in (A, B)] == [0, 1]
    now[0] = PATIENCE_SECONDS
    assert [rollout.ahead(key) for key in (B, C)] == [0, 1]


def test_who_waits_is_told_and_looked_at_again(scene, resource):
    running = of_ray_service(ray_service(resource(), OLD), preloads=True)
    held = status.Held(waiting_for_others(2), running)
    after = status.compute(resource(), scene.snapshot(), "r/i:2", Status(), scene.now, held=held)
    told = {each.type: (each.status, each.reason) for each in after.conditions}
    assert told["Ready"] == ("True", "Serving")
    assert told["ConfigApplied"] == told["Upgrading"] == ("False", "WaitingForOthers")
    assert (
        "on hold until 2 other services have finished"
        in {each.type: each.message for each in after.conditions}["Upgrading"]
    )
    assert status.requeue_seconds(after) == 30
    assert not status.is_upgrading(after)
