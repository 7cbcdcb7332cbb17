# SPDX-License-Identifier: Apache-2.0
"""The warning in `ConfigApplied` about delays that do not fit the measured start time."""

import pytest

from sd_operator import status
from sd_operator.api import Status
from sd_operator.api.status import ColdStart

START = ColdStart(
    worker="w",
    ready_at="2026-01-01T00:06:33Z",
    total_seconds=393,
    node_seconds=89,
    image_seconds=121,
    ray_seconds=95.1,
    weights_seconds=17.8,
    pipeline_seconds=36,
    warmup_seconds=34.1,
)


@pytest.fixture
def told(scene, resource):
    """`ConfigApplied` of a service whose last start took 393 s, 88 s of them to load the replica."""

    def compute(start=START, replicas=(1, 4), hold=600, **autoscaling):
        low, high = replicas
        asked = resource(
            replicas={"min": low, "max": high},
            autoscaling=autoscaling,
            limits={"coldStartTimeoutSeconds": hold},
        )
        snapshot = scene.snapshot(serve=scene.serve(spec=asked))
        before = Status(cold_start=start)
        found = {
            each.type: each
            for each in status.compute(asked, snapshot, "image:1", before, scene.now).conditions
        }["ConfigApplied"]
        return found.status, found.reason, found.message

    return compute


SLOW = "Ray runs the configuration of this spec. The last start of a worker took 393 s. "


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"idleWorkerSeconds": 30},
            "A worker is removed after 330 s of low load. Set autoscaling.idleWorkerSeconds to 93 or more",
        ),
        (
            {"downscaleDelaySeconds": 60, "idleWorkerSeconds": 600},
            (
                "A replica needs 88 s of this to load, but is removed after 60 s of low load."
                " Set autoscaling.downscaleDelaySeconds to 88 or more"
            ),
        ),
        (
            {"replicas": (0, 4), "hold": 300},
            (
                "A request that wakes the service is answered with 503 after 300 s."
                " Set limits.coldStartTimeoutSeconds to more than 393"
            ),
        ),
    ],
    ids=["idle worker", "downscale", "hold"],
)
def test_a_delay_that_does_not_fit_is_named_with_what_would(told, changes, words):
    assert told(**changes) == ("True", "DelaysTooShort", f"{SLOW}{words}.")


def test_all_of_them_are_named(told):
    found = told(replicas=(0, 4), hold=300, downscaleDelaySeconds=60, idleWorkerSeconds=30)[2]
    assert found.count(" Set ") == 3  # the advice of each
    assert all(each in found for each in ("limits.coldStart", "downscaleDelay", "Set autoscaling.idleWorker"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"start": None, "idleWorkerSeconds": 1},
        {"replicas": (2, 2), "downscaleDelaySeconds": 1, "idleWorkerSeconds": 1},
        {"replicas": (0, 4)},
    ],
    ids=["the defaults fit", "nothing measured", "a fixed number never shrinks", "the hold fits"],
)
def test_else_there_is_no_warning(told, changes):
    assert told(**changes) == (
        "True",
        "ApplicationRunning",
        "Ray runs the configuration of this spec.",
    )


def test_a_configuration_that_is_not_applied_says_so_first(scene, resource):
    asked = resource(replicas={"min": 1, "max": 4}, autoscaling={"idleWorkerSeconds": 1})
    behind = scene.snapshot(scene.but(scene.view, up_to_date=False), serve=scene.serve(spec=asked))
    before = Status(cold_start=START)
    found = status.compute(asked, behind, "image:1", before, scene.now).conditions
    applied = next(each for each in found if each.type == "ConfigApplied")
    assert (applied.status, applied.reason) == ("False", "ConfigPending")


def test_the_last_start_stays_on_record(scene, resource):
    before = Status(cold_start=START)
    assert status.compute(resource(), scene.snapshot(), "image:1", before, scene.now).cold_start == START
    nobody = status.compute(resource(), scene.snapshot(pods=()), "image:1", before, scene.now)
    assert nobody.cold_start == START
