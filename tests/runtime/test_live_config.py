# SPDX-License-Identifier: Apache-2.0
"""The effect of a changed Serve config on the running service: new limits, a full queue, no replica at all."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sd_operator.local import serving

SLOW = {"prompt": "a red circle", "img_size": 256, "steps": 100}


def config(running, *, limits=None, **model):
    """The Serve config of the quick start with other limits, and other settings of the model deployment."""
    whole = serving.local_config(running.resource, running.port)
    for deployment in whole["applications"][0]["deployments"]:
        live = deployment["user_config"]
        deployment["user_config"] = {**live, "limits": {**live["limits"], **(limits or {})}}
        if deployment["name"] == "model":
            deployment.update(model)
    return whole


def replicas(running):
    """Identities of the replicas of the model."""
    return {replica["replica_id"] for replica in running.replicas()}


@pytest.fixture
def apply(running):
    """Apply a Serve config; the one of the quick start comes back at the end."""
    yield running.apply
    running.apply(config(running))


def test_limits_change_without_a_restart(http, running, apply):
    """Also proves that `user_config` reaches both deployments."""
    before = replicas(running)
    assert len(before) == 1
    assert http.get("/imagine", params={"prompt": "a", "steps": 6}).status_code == 200
    apply(config(running, limits={"max_steps": 5}))
    assert http.get("/imagine", params={"prompt": "a", "steps": 6}).status_code == 400
    assert http.get("/imagine", params={"prompt": "a", "steps": 5}).status_code == 200
    assert replicas(running) == before


def test_past_the_time_limit_is_504(http, running, apply):
    apply(config(running, limits={"timeout_seconds": 1}))
    answer = http.get("/imagine", params=SLOW)
    assert answer.status_code == 504
    assert (
        answer.json()["error"]["message"] == "the request did not finish within 1 s (limits.timeoutSeconds)"
    )
    assert answer.headers["x-request-id"]


def test_a_full_queue_is_429_and_says_when_to_come_back(running, apply):
    apply(config(running, max_ongoing_requests=1, max_queued_requests=1, limits={"timeout_seconds": 5}))
    with httpx.Client(base_url=running.local.url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: client.get("/imagine", params={**SLOW, "seed": seed}), range(8)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= 4
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert {answer.json()["error"]["type"] for answer in refused} == {"rate_limit_error"}


def test_at_zero_it_is_ready_and_the_first_request_wakes_it(http, running, apply, looks, eventually):
    whole = config(running, limits={"timeout_seconds": 1})
    ingress, model = whole["applications"][0]["deployments"]
    ingress["user_config"] |= {"scale_to_zero": True}
    model["autoscaling_config"] |= {"min_replicas": 0, "downscale_delay_s": 1, "look_back_period_s": 2}
    apply(whole)
    eventually(lambda: http.get("/readyz").json()["phase"] == "scaled-to-zero")
    for _ in range(5):
        answer = http.get("/readyz")
        assert (answer.status_code, answer.json()["phase"]) == (200, "scaled-to-zero")
    # Far longer than the time limit of a request: it is held while a replica loads.
    answer = http.get("/imagine", params={"prompt": "a red circle on a white background", "seed": 1})
    assert answer.status_code == 200
    _, shape, _ = looks(answer.content)
    assert shape[0] > 180
    assert http.get("/readyz").json()["phase"] == "ready"


def test_a_version_that_cannot_be_imported_leaves_the_one_before_it_answering(
    http, running, apply, eventually
):
    """Serve names no deployment then, so `/readyz` has to ask a replica."""
    broken = config(running)
    broken["applications"][0]["import_path"] = "sd_runtime.no_such_module:build_app"
    running.put(broken)
    eventually(lambda: running.application().status == "DEPLOY_FAILED")
    assert not running.application().deployments
    for _ in range(3):
        answer = http.get("/readyz")
        assert (answer.status_code, answer.json()["phase"]) == (200, "ready")
        assert http.get("/imagine", params={"prompt": "a red circle", "steps": 1}).status_code == 200
        time.sleep(1)
