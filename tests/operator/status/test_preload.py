# SPDX-License-Identifier: Apache-2.0
"""`ImagesPreloaded`, the counts, and the status while a change waits for its image."""

from datetime import timedelta

import pytest

from sd_operator import status
from sd_operator.api import Status
from sd_operator.api.status import Reason
from sd_operator.builders.ray_service import ray_service
from sd_operator.observe.effective_spec import of_ray_service
from sd_operator.observe.image_gate import Hold
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.preload_state import ImageState, PreloadState
from sd_operator.observe.snapshot import Snapshot
from sd_operator.reconcile.events import flips
from sd_operator.settings import Settings
from sd_operator.status.preload import waiting_for_images

A, AB = frozenset("a"), frozenset("ab")
DIGEST = "sha256:" + "ab" * 32
PULL = PodProblem(Reason.IMAGE_PULL_FAILED, "node b", "image r/i:2: not found")
QUOTA = PodProblem(Reason.QUOTA_EXCEEDED, "preload pods", "exceeded quota: small")
SINCE = "2026-01-02T03:00:00Z"
WAITING = Hold(SINCE, "2026-01-02T03:30:00Z", is_over=False, seconds=1800)
LATE = Hold(SINCE, "2026-01-02T03:30:00Z", is_over=True, seconds=1800)


def image(ready=AB, matched=AB, **more):
    return ImageState("r/i:2", frozenset(matched), frozenset(ready), **more)


def preload(*images, **more):
    return PreloadState(images or (image(),), **more)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (PreloadState(), ("True", "NoMatchingNodes")),
        (preload(image("", "")), ("True", "NoMatchingNodes")),
        (preload(image("", ""), settled=False), ("False", "Pulling")),
        (preload(image(A)), ("False", "Pulling")),
        (preload(unmade=1), ("False", "Pulling")),
        (preload(unmade=1, refused=QUOTA), ("False", "QuotaExceeded")),
        (preload(), ("True", "ImagesPresent")),
        (preload(image(A, problems=(PULL,))), ("False", "ImagePullFailed")),
        (preload(image(A, unknown=frozenset("b"))), ("Unknown", "ImagesUnseen")),
        (preload(hidden="no right"), ("Unknown", "ImagesUnseen")),
    ],
    ids=[
        "none",
        "no nodes",
        "not counted",
        "one of two",
        "no pod yet",
        "no pod allowed",
        "all",
        "failed",
        "unknown",
        "hidden",
    ],
)
def test_the_condition(scene, state, told):
    assert scene.told("ImagesPreloaded", scene.snapshot(preload=state)) == told


@pytest.mark.parametrize("spec", [{"suspend": True}, {"imagePreload": {"mode": "Disabled"}}])
def test_where_nothing_is_preloaded_nothing_is_missing(scene, resource, spec):
    snapshot = scene.snapshot(preload=preload(image(A)))
    assert scene.told("ImagesPreloaded", snapshot, resource(**spec)) == ("True", "Disabled")


def test_each_image_is_told_with_digest_and_the_registrys_words(scene, resource):
    other = PodProblem(Reason.IMAGE_PULL_FAILED, "node a", "image r/m:1: denied")
    more = ImageState("r/m:1", AB, frozenset(), problems=(other, PULL))
    snapshot = scene.snapshot(preload=preload(image(digest=DIGEST, digests=1), more))
    found = status.compute(resource(), snapshot, "r/i:2", Status(), scene.now).preload
    assert (found.nodes_ready, found.nodes_matched, found.summary) == (0, 2, "0/2")
    assert found.images[0].model_dump(exclude_none=True) == {
        "image": "r/i:2",
        "digest": DIGEST,
        "nodes_ready": 2,
        "nodes_matched": 2,
        "nodes_unknown": 0,
    }
    assert (
        found.images[1].message
        == "node a: image r/m:1: denied (and 1 more)"
    )  # fmt: skip


def test_a_tag_that_moved_is_told_where_all_is_present(scene):
    snapshot = scene.snapshot(preload=preload(image(digest=DIGEST, digests=2)))
    found = scene.conditions(snapshot)["ImagesPreloaded"]
    assert (found.status, found.reason) == ("True", "ImagesPresent")
    assert "different versions of r/i:2" in found.message


@pytest.fixture
def held(scene, resource):
    """The status while a change to image r/i:2 with other limits waits, and r/i:1 runs."""

    def compute(hold=WAITING, *, exists=True, previous=None, state=None):
        before = resource(image={"repository": "r/i", "tag": "1"})
        running = of_ray_service(ray_service(before, Settings()), preloads=True) if exists else None
        state = state or preload(image(A))
        snapshot = scene.snapshot(serve=scene.serve(spec=before), preload=state)
        if not exists:
            snapshot = Snapshot(preload=state)
        after = resource(image={"repository": "r/i", "tag": "2"}, replicas={"min": 2, "max": 3})
        kept = status.Held(waiting_for_images(hold), running, hold)
        return status.compute(after, snapshot, "r/i:2", previous or Status(), scene.now, held=kept)

    return compute


def told(computed):
    return {each.type: (each.status, each.reason) for each in computed.conditions}


def test_while_a_change_waits_the_status_tells_of_what_runs(held):
    found = held()
    assert told(found) == {
        "Ready": ("True", "Serving"),
        "Accepted": ("True", "Accepted"),
        "ImagesPreloaded": ("False", "Pulling"),
        "ModelAvailable": ("True", "ModelLoaded"),
        "ConfigApplied": ("False", "WaitingForImages"),
        "Schedulable": ("True", "Scheduled"),
        "Upgrading": ("False", "WaitingForImages"),
        "Suspended": ("False", "Running"),
    }
    assert (found.image, found.replicas.summary, found.preload.summary) == ("r/i:1", "1/1 (1-1)", "1/2")
    message = {each.type: each.message for each in found.conditions}["ImagesPreloaded"]
    assert (
        message
        == "The image is on 1/2 matching nodes. The change stays on hold until the image is on all matching nodes;"
        " the deadline is 2026-01-02T03:30:00Z."
    )


def test_what_is_there_since_a_moment_still_reads_as_waiting(held):
    assert told(held(state=preload()))["ImagesPreloaded"] == ("False", "Pulling")


def test_a_first_creation_that_waits_says_so(held):
    found = held(exists=False)
    assert told(found)["Ready"] == ("False", "WaitingForImages")
    assert told(found)["ImagesPreloaded"] == ("False", "Pulling")


def test_a_late_image_is_told_once_with_its_cause_and_an_event(held):
    early = held(state=preload(image(A, problems=(PULL,))))
    late = held(LATE, previous=early, state=preload(image(A, problems=(PULL,))))
    condition = {each.type: each for each in late.conditions}["ImagesPreloaded"]
    assert (condition.status, condition.reason) == ("False", "DeadlineExceeded")
    assert "1800 s (imagePreload.timeoutSeconds)" in condition.message
    assert condition.message.endswith(". The change stays on hold. node b: image r/i:2: not found.")
    assert [note.reason for note in flips(early, late)] == ["DeadlineExceeded"]


def test_what_waits_is_looked_at_again_since_a_deadline_is_time(held, scene, resource):
    assert status.requeue_seconds(held()) == 30
    later = scene.now + timedelta(seconds=1)
    well = status.compute(resource(), scene.snapshot(scene.view, serve=scene.serve(), preload=preload()), "r/i:2", Status(), later)  # fmt: skip
    assert status.requeue_seconds(well) is None


def test_since_when_a_change_waits_is_on_record(held, scene):
    assert held().preload.waiting_since == SINCE
    snapshot = scene.snapshot(serve=scene.serve(), preload=preload())
    assert (
        status.compute(scene._resource(), snapshot, "r/i:2", Status(), scene.now).preload.waiting_since
        is None
    )


def test_the_nodes_that_are_waited_for_are_named(held):
    waiting = tuple(f"node {name} is pulling" for name in "bcdef")
    found = held(state=preload(image("a", "abcdefg", waiting=waiting), unmade_on=("g",), unmade=1))
    message = {each.type: each.message for each in found.conditions}["ImagesPreloaded"]
    assert message.startswith(
        "The image is on 1/8 matching nodes; node b is pulling, node c is pulling, node d is pulling, and 3 more."
    )


ADVICE = (
    "Set a nodeSelector on the worker group, or add the label of your GPU nodes to"
    " SDSERVICE_GPU_NODE_LABELS (preload.gpuNodeLabels of the chart)."
)
LABELS = "one of the labels nvidia.com/gpu.present, accelerator"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (PreloadState(sought=("pool=l4",)), "No ready node has pool=l4. The image is preloaded as soon as a matching node joins."),
        (
            PreloadState(sought=(LABELS,), by_gpu_labels=True, unlabelled=("a", "b", "c", "d")),
            f"No ready node has {LABELS}. GPUs of this kind are on a, b, c and 1 more. {ADVICE}",
        ),
    ],
    ids=["selector", "labels"],
)  # fmt: skip
def test_where_no_node_matches_it_says_which_were_looked_for(scene, state, words):
    found = scene.conditions(scene.snapshot(preload=state))["ImagesPreloaded"]
    assert (found.status, found.reason, found.message) == ("True", "NoMatchingNodes", words)


SERVING = ImageState("r/i:1", AB, AB, digest=DIGEST)
LOST = PodProblem(Reason.IMAGE_LOST, "node b", "image r/i:1 was there and is not any more")


def test_what_serves_until_a_change_is_through_is_told_too(held):
    found = held(state=preload(image(A), former=(SERVING,)))
    message = {each.type: each.message for each in found.conditions}["ImagesPreloaded"]
    assert message.endswith("Image r/i:1, which a cluster still runs, is on 2/2 nodes.")
    assert [(each.image, each.nodes_ready) for each in found.preload.images] == [("r/i:2", 1), ("r/i:1", 2)]
    assert found.preload.summary == "1/2", "counts are of what is to come"


def test_a_serving_image_that_is_lost_counts(scene):
    lost = ImageState("r/i:1", AB, A, problems=(LOST,))
    snapshot = scene.snapshot(preload=preload(former=(lost,)))
    found = scene.conditions(snapshot)["ImagesPreloaded"]
    assert (found.status, found.reason) == ("False", "ImageLost")
    assert found.message.endswith(
        "still runs, is on 1/2 nodes: node b: image r/i:1 was there and is not any more."
    )


def test_a_daemon_set_that_may_not_be_made_is_told_in_the_api_servers_words(scene):
    refused = PodProblem(
        Reason.REFUSED, "DaemonSet x", "the API server refuses the DaemonSet: no DaemonSets here"
    )
    state = preload(image("", ""), settled=False, refused=refused)
    found = scene.conditions(scene.snapshot(preload=state))["ImagesPreloaded"]
    assert (found.status, found.reason) == ("False", "Refused")
    assert found.message == "DaemonSet x: the API server refuses the DaemonSet: no DaemonSets here"
