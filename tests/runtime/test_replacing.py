# SPDX-License-Identifier: Apache-2.0
"""Replicas are added, removed and replaced under load, and no accepted request is lost."""

import copy
import itertools

import pytest

from sd_operator.api import parse
from sd_operator.local import serving

# Four at once: on two cores, longer than the 20 s that Ray by itself gives a replica to finish.
LONG = {"prompt": "a red circle", "size": "256x256", "num_inference_steps": 100}

other_sides = itertools.cycle(
    (64, 72, 80, 88, 96)
)  # to draw at the start: each makes the replica another one


@pytest.fixture(scope="module")
def apply(running, eventually):
    """Apply what the operator makes of the quick start with other bounds, and wait for the new replicas alone.

    The quick start's own config comes back at the end.
    """

    def apply(*, replicas, workers, side):
        body = copy.deepcopy(running.body)
        body["spec"] |= {
            "gpusPerReplica": 0,
            "limits": {"timeoutSeconds": 600},
            "replicas": {"min": replicas, "max": replicas},
            "workerGroups": [{"name": "cpu", "maxReplicas": workers}],
            "upgrade": {"surgeWorkers": 0},  # this Ray has the places that it has
            "warmup": {"shapes": [{"width": side, "height": side}]},
        }
        running.apply(serving.local_config(parse(body), running.port))
        eventually(lambda: states() == ["RUNNING"] * replicas)
        return {each["replica_id"] for each in running.replicas()}

    def states():
        return [each["state"] for each in running.replicas()]

    yield apply
    running.apply(serving.local_config(running.resource, running.port))
    eventually(lambda: states() == ["RUNNING"])


@pytest.mark.parametrize("workers", [1, 2], ids=["no place beside it", "a place beside it"])
def test_a_replica_that_is_replaced_loses_no_request(load, running, apply, workers):
    """With a place to spare nobody even waits: none is refused."""
    before = apply(replicas=1, workers=workers, side=next(other_sides))
    with load(running.local.url, steps=2, per_second=1) as meanwhile:
        after = apply(replicas=1, workers=workers, side=next(other_sides))
    assert not before & after
    assert set(meanwhile.answers) <= ({200} if workers > 1 else {200, 429})
    assert 200 in meanwhile.answers


def test_scaling_down_finishes_what_was_begun(http, apply, eventually):
    """Both replicas are busy when one has to go."""
    side = next(other_sides)
    before = apply(replicas=2, workers=2, side=side)
    jobs = [http.post("/v1/jobs", json=LONG | {"seed": seed}).headers["location"] for seed in range(4)]

    def states():
        return {http.get(job).json()["state"] for job in jobs}

    eventually(lambda: states() == {"running"})
    assert apply(replicas=1, workers=2, side=side) < before
    eventually(lambda: "running" not in states())
    assert states() == {"succeeded"}
