# SPDX-License-Identifier: Apache-2.0
"""The images on each node, according to preload pods and node status."""

from datetime import UTC, datetime

import pytest

from sd_operator.api.status import Reason
from sd_operator.observe.nodes import read_node
from sd_operator.observe.preload_state import View, of_daemon_sets

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OLD, NEW, MORE = "example.org/worker:1", "example.org/worker:2", "example.org/more:1"
DIGEST, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
LONG_AGO = {"running": {"startedAt": "2026-01-02T03:00:00Z"}}


def daemon_set(*images, group="gpu", desired=1, generation=2, seen=2):
    return {
        "metadata": {
            "name": f"imagine-preload-{group}",
            "generation": generation,
        },
        "spec": {
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/component": f"preload-{group}"}},
                "spec": {"containers": [{"name": image, "image": image} for image in images]},
            }
        },
        "status": {"observedGeneration": seen, "desiredNumberScheduled": desired},
    }  # fmt: skip


def pod(node, *images, state=None, group="gpu", digest=DIGEST, bound=True, **more):
    pinned = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [pinned]}}
    state = LONG_AGO if state is None else state
    statuses = [
        # A runtime may write the reference otherwise than we do.
        {"name": image, "image": "sha256:0", "imageID": f"{image.split(':')[0]}@{digest}", "state": state}
        for image in images
    ]
    return {
        "metadata": {
            "name": f"imagine-preload-{group}-{node}",
            "labels": {"app.kubernetes.io/component": f"preload-{group}"},
        },
        "spec": {
            "containers": [{"name": image, "image": image} for image in images],
            "affinity": {"nodeAffinity": required},
            **({"nodeName": node} if bound else {}),
        },
        "status": {"containerStatuses": statuses if bound else [], **more},
    }


def node(name, *images, ready="True", unschedulable=False):
    return {
        "metadata": {"name": name},
        "spec": {"unschedulable": unschedulable},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "images": [{"names": [image]} for image in images],
        },
    }


def state(daemon_sets, pods, nodes=None):
    known = None if nodes is None else {each["metadata"]["name"]: read_node(each) for each in nodes}
    return of_daemon_sets(daemon_sets, pods, View(known, 50, NOW))


def counts(found):
    return found.nodes_ready, found.nodes_matched


def test_a_node_has_an_image_once_a_container_runs_it():
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    found = state([daemon_set(NEW, desired=2)], [pod("a", NEW), pod("b", NEW, state=waiting)])
    assert counts(found) == (1, 2)
    assert found.images[0].ready == {"a"}
    assert found.images[0].digest == DIGEST
    assert not found.runtime_image_is_there


def test_nodes_that_are_waited_for_are_named_with_what_they_do():
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-02T03:01:00Z"}
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    pods = [
        pod("a", NEW),
        pod("b", NEW, state=waiting, conditions=[scheduled]),
        pod("c", NEW, state=waiting),
        pod("d", NEW, bound=False),
        pod("e", OLD),
    ]
    assert state([daemon_set(NEW, desired=5)], pods).waiting == (
        "node b has been pulling since 2026-01-02T03:01:00Z",
        "node c is pulling",
        "node d does not have its preload pod yet",
        "node e still has the former preload pod",
    )


def test_pods_of_another_shared_daemon_set_do_not_count():
    here, there = daemon_set(NEW, group="x"), pod("b", NEW, group="x")
    here["spec"]["template"]["metadata"]["labels"]["sdservice.dev/preload"] = "0a"
    there["metadata"]["labels"]["sdservice.dev/preload"] = "0b"
    own = pod("a", NEW, group="x")
    own["metadata"]["labels"]["sdservice.dev/preload"] = "0a"
    assert counts(state([here], [own, there])) == (1, 1)


def test_what_is_looked_for_is_told():
    live = daemon_set(NEW)
    live["spec"]["template"]["spec"]["nodeSelector"] = {"pool": "l4"}
    assert state([live], []).sought == ("pool=l4",)


def test_a_pod_of_the_former_image_does_not_count():
    refused = [{"name": OLD, "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]
    found = state([daemon_set(NEW)], [pod("a", OLD, containerStatuses=refused, phase="Pending")])
    assert counts(found) == (0, 1)
    assert (found.problems, found.runtime_image_is_there) == ((), False)


def test_a_daemon_set_that_its_controller_has_not_seen_is_not_settled():
    found = state([daemon_set(NEW, seen=1, desired=0)], [])
    assert (found.settled, found.runtime_image_is_there) == (False, False)


def test_no_matching_node_leaves_nothing_to_wait_for():
    found = state([daemon_set(NEW, desired=0)], [])
    assert (counts(found), found.runtime_image_is_there) == ((0, 0), True)


def test_a_pod_that_does_not_exist_yet_is_waited_for():
    found = state([daemon_set(NEW, desired=2)], [pod("a", NEW)])
    assert (counts(found), found.runtime_image_is_there) == ((1, 2), False)


@pytest.mark.parametrize("away", [{"ready": "Unknown"}, {"unschedulable": True}], ids=["not ready", "cordoned"])  # fmt: skip
def test_a_node_that_takes_no_worker_does_not_count(away):
    pods = [pod("a", NEW), pod("b", NEW, bound=False)]
    found = state([daemon_set(NEW, desired=2)], pods, [node("a"), node("b", **away)])
    assert (counts(found), found.runtime_image_is_there) == ((1, 1), True)
    assert counts(state([daemon_set(NEW, desired=2)], pods)) == (1, 2), "nothing is known of nodes"


def test_a_node_of_two_groups_counts_once():
    groups = [daemon_set(NEW, desired=2), daemon_set(NEW, group="b")]
    found = state(groups, [pod("a", NEW), pod("c", NEW), pod("a", NEW, group="b")])
    assert counts(found) == (2, 2)


def test_a_node_is_ready_with_all_images_and_each_is_told():
    waiting = {
        "waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{MORE}": not found'}
    }
    both = pod("a", NEW, MORE)
    both["status"]["containerStatuses"][1]["state"] = waiting
    found = state([daemon_set(NEW, MORE)], [both])
    assert counts(found) == (0, 1)
    assert [(each.image, len(each.ready)) for each in found.images] == [(NEW, 1), (MORE, 0)]
    assert found.runtime_image_is_there, "only the runtime image is waited for"
    (problem,) = found.problems
    assert (problem.reason, problem.subject) == (Reason.IMAGE_PULL_FAILED, "node a")
    assert problem.words == f"image {MORE}: not found"


def test_an_image_without_sleep_is_told():
    words = 'exec: "sleep": executable file not found in $PATH'
    refused = {"waiting": {"reason": "RunContainerError", "message": words}}
    (problem,) = state([daemon_set(NEW)], [pod("a", NEW, state=refused)]).problems
    assert (problem.reason, problem.words) == (Reason.CONTAINER_REFUSED, words)


def test_a_pod_without_room_is_told():
    conditions = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Too many pods"}
    ]
    found = state([daemon_set(NEW)], [pod("a", NEW, bound=False, conditions=conditions)])
    assert [(each.reason, each.subject) for each in found.problems] == [(Reason.UNSCHEDULABLE, "node a")]
    assert counts(found) == (0, 1)


def test_an_evicted_pod_keeps_no_image():
    ended = pod("a", NEW, phase="Failed", reason="Evicted", message="low on resource: ephemeral-storage")
    (problem,) = state([daemon_set(NEW)], [ended]).problems
    assert problem.reason is Reason.IMAGE_LOST
    assert "Evicted): low on resource: ephemeral-storage" in problem.words


@pytest.mark.parametrize(
    ("listed", "started", "lost"),
    [
        ([OLD], "2026-01-02T03:00:00Z", True),
        ([OLD, NEW], "2026-01-02T03:00:00Z", False),
        ([], "2026-01-02T03:00:00Z", False),
        ([OLD], "2026-01-02T03:03:00Z", False),
    ],
    ids=["gone", "there", "node lists none", "list may be old"],
)
def test_an_image_that_the_node_no_longer_lists_is_lost(listed, started, lost):
    running = pod("a", NEW, state={"running": {"startedAt": started}})
    found = state([daemon_set(NEW)], [running], [node("a", *listed)])
    assert counts(found) == (0 if lost else 1, 1)
    assert [each.reason for each in found.problems] == [Reason.IMAGE_LOST] * lost


def test_a_tag_that_moved_between_two_pulls_shows():
    pods = [pod("a", NEW), pod("b", NEW, digest=OTHER), pod("c", NEW)]
    (image,) = state([daemon_set(NEW, desired=3)], pods).images
    assert (image.digest, image.digests) == (DIGEST, 2)
