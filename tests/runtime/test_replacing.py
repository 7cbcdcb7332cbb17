# SPDX-License-Identifier: Apache-2.0
"""Replicas come, go and are replaced under load, and no request that was accepted is lost."""

import copy
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sd_operator import local_ray
from sd_operator.api import parse

SHORT = {"prompt": "a red circle", "steps": 2}
# Four at once: on two cores, longer than the 20 s that Ray by itself gives a replica to finish.
LONG = {"prompt": "a red circle", "size": "256x256", "num_inference_steps": 100}
PER_SECOND, MOST = 1, 240

other_sides = itertools.cycle(
    (64, 72, 80, 88, 96)
)  # to draw at the start: each makes the replica another one


class Load:
    """Requests that come whenever they do, answered or not; so many at most."""

    def __init__(self, url):
        self._client = httpx.Client(base_url=url, timeout=600, limits=httpx.Limits(max_connections=MOST))
        self._pool = ThreadPoolExecutor(MOST)
        self._stop = threading.Event()
        self._sent = []
        self._thread = threading.Thread(target=self._run)
        self.answers = []

    def _run(self):
        for seed in range(MOST):
            self._sent.append(self._pool.submit(self._ask, seed))
            if self._stop.wait(1 / PER_SECOND):
                return

    def _ask(self, seed):
        try:
            return self._client.get("/imagine", params=SHORT | {"seed": seed}).status_code
        except httpx.HTTPError as error:
            return repr(error)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.answers = [each.result() for each in self._sent]
        self._pool.shutdown()
        self._client.close()


@pytest.fixture
def load(running):
    return Load(running.local.url)


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
            "warmup": {"shapes": [{"width": side, "height": side}]},
        }
        running.apply(local_ray.local_config(parse(body), running.port))
        eventually(lambda: states() == ["RUNNING"] * replicas)
        return {each["replica_id"] for each in running.replicas()}

    def states():
        return [each["state"] for each in running.replicas()]

    yield apply
    running.apply(local_ray.local_config(running.resource, running.port))
    eventually(lambda: states() == ["RUNNING"])


@pytest.mark.parametrize("workers", [1, 2], ids=["no place beside it", "a place beside it"])
def test_a_replica_that_is_replaced_loses_no_request(load, apply, workers):
    """With a place to spare nobody even waits: none is refused."""
    before = apply(replicas=1, workers=workers, side=next(other_sides))
    with load:
        after = apply(replicas=1, workers=workers, side=next(other_sides))
    assert not before & after
    assert set(load.answers) <= ({200} if workers > 1 else {200, 429})
    assert 200 in load.answers


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
