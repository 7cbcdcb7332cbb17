# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from sd_operator.ray.serve_state import ServeState, carry_over, read
from sd_operator.ray.traceback import RuntimeProblem, runtime_problem


@pytest.fixture
def answer(root):
    """What a real Ray 2.60 answered, by what had been done to it."""
    recorded = json.loads((root / "tests/data/serve_answers.json").read_text())
    return lambda name: read(recorded[name])


def test_ray_without_our_application():
    assert read({"applications": {}}) == ServeState("NOT_STARTED")


def test_running_replicas_are_counted(answer):
    state = answer("running")
    assert (state.status, state.running("model"), state.running("ingress")) == ("RUNNING", 1, 1)
    assert state.deployments["model"].target == 1
    assert state.words() == ""


def test_a_replica_that_stops_takes_no_requests(answer):
    state = answer("at zero")
    assert (state.status, state.running("model"), state.deployments["model"].target) == ("RUNNING", 0, 0)


def test_a_failing_constructor_tells_its_error(answer):
    state = answer("constructor fails")
    assert state.status == "DEPLOY_FAILED"
    assert runtime_problem(state.words()) == (
        RuntimeProblem.NOT_FOUND,
        "model.uri: got 'hf://a/b': there is no such repository",
    )


def test_replicas_serve_on_while_the_application_cannot_be_built(answer):
    """Ray leaves the deployments out of its answer then, and goes on answering requests with them."""
    failed = answer("bad import path")
    assert (failed.status, failed.deployments) == ("DEPLOY_FAILED", {})
    carried = carry_over(failed, answer("running"))
    assert (carried.running("model"), carried.running("ingress")) == (1, 1)
    assert carried.deployments["model"].config == {}, "what they were configured with is the former config"
    assert carry_over(failed, None) == failed


def test_nothing_is_carried_over_to_an_application_that_is_gone(answer):
    gone = ServeState("NOT_STARTED")
    assert carry_over(gone, answer("running")) == gone


def test_replicas_that_run_are_counted():
    replicas = [{"state": "RUNNING"}, {"state": "STARTING"}, {"state": "RUNNING"}]
    answer = {"applications": {"imagine": {"deployments": {"model": {"replicas": replicas}}}}}
    assert read(answer).deployments["model"].running == 2
