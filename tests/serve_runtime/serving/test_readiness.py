# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from sd_runtime.serving import readiness
from sd_runtime.serving.readiness import Readiness, ReadinessProbe, judge

READY = Readiness(ready=True, phase="ready")
LOADING = Readiness(ready=False, phase="loading")
STARTING = Readiness(ready=False, phase="starting")
AT_ZERO = Readiness(ready=True, phase="scaled-to-zero")


@pytest.mark.parametrize(
    ("replicas", "status", "scale_to_zero", "expected"),
    [
        ({}, "UPDATING", False, STARTING),
        ({"STARTING": 1}, "UPDATING", False, LOADING),
        ({"RUNNING": 1}, "HEALTHY", False, READY),
        ({"RUNNING": 1, "STARTING": 3}, "UPSCALING", False, READY),
        ({"STOPPING": 1}, "DOWNSCALING", False, STARTING),
        ({}, "HEALTHY", False, STARTING),
        ({}, "HEALTHY", True, AT_ZERO),
        ({"STOPPING": 1}, "DOWNSCALING", True, AT_ZERO),
        ({"STARTING": 1}, "UPSCALING", True, LOADING),
        ({}, "UPDATING", True, STARTING),
        ({}, "DEPLOY_FAILED", True, STARTING),
        ({}, "UNHEALTHY", True, STARTING),
    ],
)
def test_state_of_the_model(replicas, status, scale_to_zero, expected):
    assert judge(replicas, status, scale_to_zero=scale_to_zero) == expected


class Model:
    """A handle of the model: a replica answers, or is gone."""

    def __init__(self):
        self.asked, self.gone = 0, False
        self.info = self

    async def remote(self):
        self.asked += 1
        if self.gone:
            raise RayActorError
        return "what it computes with"


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def probe(model, monkeypatch):
    """A probe that asks anew each time; `names` is what Serve's controller names of the application."""
    found = SimpleNamespace(deployments={})
    controller = SimpleNamespace(
        get_replica_context=lambda: SimpleNamespace(app_name="imagine"),
        status=lambda: SimpleNamespace(applications={"imagine": found}),
    )
    monkeypatch.setattr(readiness, "serve", controller)
    for name in ("_FRESH_SECONDS", "_AWAITED_SECONDS"):
        monkeypatch.setattr(readiness, name, 0.0)
    probe = ReadinessProbe(model)
    probe.names, probe.controller = found.deployments, controller
    return probe


async def test_replicas_of_this_version_answer_while_another_is_built_or_failed_to_be(probe, model):
    assert await probe.read() == READY
    model.gone = True
    assert await probe.read() == STARTING
    model.gone = False
    assert await probe.read() == READY


async def test_a_replica_is_asked_where_the_controller_is_gone_with_the_head(probe, model):
    def gone():
        raise RayActorError

    probe.controller.status = gone
    assert await probe.read() == READY
    model.gone = True
    assert await probe.read() == STARTING


async def test_what_the_controller_names_needs_no_question_to_a_replica(probe, model):
    probe.names["model"] = SimpleNamespace(replica_states={"RUNNING": 1}, status="HEALTHY")
    assert await probe.read() == READY
    probe.names["model"].replica_states = {"STARTING": 1}
    assert await probe.read() == LOADING
    assert model.asked == 0


async def test_at_a_floor_of_zero_the_question_would_wake_a_replica(probe, model):
    probe.scale_to_zero = True
    probe.names["model"] = SimpleNamespace(replica_states={}, status="HEALTHY")
    assert await probe.read() == AT_ZERO
    probe.names.clear()
    assert await probe.read() == AT_ZERO
    assert model.asked == 0


async def test_the_controller_is_asked_as_seldom_as_a_caller_can_bear(probe, model, monkeypatch):
    monkeypatch.setattr(readiness, "_FRESH_SECONDS", 600)
    assert await probe.read() == READY
    assert await probe.read() == READY
    assert await probe.read(700) == READY
    assert model.asked == 1
    assert await probe.read(1e-9) == READY
    assert model.asked == 2


async def test_a_start_that_is_awaited_is_looked_at_more_often(probe, model, monkeypatch):
    monkeypatch.setattr(readiness, "_FRESH_SECONDS", 600)
    model.gone = True
    assert await probe.read() == STARTING
    model.gone = False
    assert await probe.read() == READY
    model.gone = True
    assert await probe.read() == READY
