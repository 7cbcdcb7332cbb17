# SPDX-License-Identifier: Apache-2.0
"""Mode External: the operator verifies images from an external source."""

from datetime import UTC, datetime

import pytest

from sd_operator.api.status import Reason
from sd_operator.observe.nodes import read_node
from sd_operator.observe.preload_external import of_nodes
from sd_operator.observe.preload_state import View

IMAGE, MORE = "example.org/worker:2", "example.org/more:1"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def node(name, *images, gpus=1, ready="True", taints=(), labels=None):
    return {
        "metadata": {"name": name, "labels": labels or {"pool": "l4"}},
        "spec": {"taints": list(taints)},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": ready}],
            "images": [{"names": [image]} for image in (*images, "example.org/pause:1")],
        },
    }


def worker(where, seconds, restarts=0):
    status = {
        "conditions": [
            {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": "2026-01-02T03:00:00Z"}
        ],
        "initContainerStatuses": [
            {
                "restartCount": restarts,
                "state": {"terminated": {"startedAt": f"2026-01-02T03:{seconds // 60:02}:{seconds % 60:02}Z"}},
            }
        ],
    }  # fmt: skip
    labels = {"ray.io/node-type": "worker", "ray.io/is-ray-node": "yes"}
    return {"metadata": {"name": "w", "labels": labels}, "spec": {"nodeName": where}, "status": status}


@pytest.fixture
def found(resource):
    def ask(nodes, pods=(), images=(IMAGE,), most=50, **spec):
        group = {"name": "gpu", "nodeSelector": {"pool": "l4"}}
        wanted = resource(**{"workerGroups": [group], "imagePreload": {"mode": "External"}} | spec).spec
        known = None if nodes is None else {each["metadata"]["name"]: read_node(each) for each in nodes}
        return of_nodes(wanted, images, pods, View(known, most, NOW))

    return ask


def test_nodes_are_asked_for_the_image(found):
    state = found([node("a", IMAGE), node("b")])
    assert (state.nodes_ready, state.nodes_matched) == (1, 2)
    (problem,) = state.problems
    assert (problem.reason, problem.subject) == (Reason.IMAGE_NOT_PRELOADED, "node b")


def test_a_full_list_tells_nothing_of_what_is_not_on_it(found):
    state = found([node("a", IMAGE), node("b")], most=1)
    assert (state.images[0].ready, state.images[0].unknown, state.problems) == ({"a"}, {"b"}, ())


@pytest.mark.parametrize(
    "other",
    [
        node("b", gpus=0),
        node("b", ready="False"),
        node("b", labels={"pool": "cpu"}),
        node("b", taints=[{"key": "spot", "value": "true", "effect": "NoSchedule"}]),
    ],
    ids=["no GPU", "not ready", "not selected", "tainted"],
)
def test_nodes_that_take_no_worker_are_not_asked(found, other):
    assert found([node("a", IMAGE), other]).nodes_matched == 1


@pytest.mark.parametrize(("seconds", "in_time"), [(3, True), (121, False)])
def test_an_image_that_was_pulled_for_the_first_pod_was_not_there_before(found, seconds, in_time):
    """It is on the node's list all the same; and one that loads lazily is, too."""
    state = found([node("a", IMAGE)], [worker("a", seconds)])
    assert state.nodes_ready == (1 if in_time else 0)
    if not in_time:
        assert "started 121 s after its sandbox" in state.problems[0].words


def test_a_container_that_was_started_again_tells_nothing_of_the_pull(found):
    assert found([node("a", IMAGE)], [worker("a", 121, restarts=1)]).nodes_ready == 1


def test_further_images_are_verified_too(found):
    state = found([node("a", IMAGE)], images=(IMAGE, MORE))
    assert [len(each.ready) for each in state.images] == [1, 0]
    assert state.nodes_ready == 0


def test_without_a_look_at_nodes_nothing_is_assumed(found):
    state = found(None)
    assert "may not read nodes" in state.hidden
