# SPDX-License-Identifier: Apache-2.0
"""A change of the weights waits until they are downloaded, if workers share the download."""

import pytest

from sd_operator import status
from sd_operator.api import Status
from sd_operator.builders.preload import weights_daemon_sets
from sd_operator.builders.ray_service import ray_service
from sd_operator.observe.effective_spec import of_spec
from sd_operator.observe.nodes import Node
from sd_operator.observe.weights_gate import Fetching, asks_for_weights, fetching
from sd_operator.settings import Settings
from sd_operator.status.model import fetching_weights

SETTINGS = Settings(node_cache_directory="/mnt/weights")
CLAIM = {"persistentVolumeClaim": {"claimName": "weights"}}
DIRECTORY = {"nodeDirectory": {}}
ERROR = "ModelNotFound: model.uri: got 'hf://owner/none': there is no such repository"


@pytest.fixture
def drawing(resource):
    """A service whose weights come from the hub, and are kept in a claim."""

    def build(name="one", cache=CLAIM, **spec):
        source = {"preset": None, "uri": f"hf://owner/{name}", "revision": "1" * 40, "cache": cache}
        return resource(**spec, model=source)

    return build


def body(asked):
    return ray_service(asked, SETTINGS)


def test_only_other_weights_are_waited_for(drawing):
    live = body(drawing())
    assert asks_for_weights(drawing("two").spec, body(drawing("two")), live)
    limits = drawing(limits={"maxSteps": 9})
    assert not asks_for_weights(limits.spec, body(limits), live)


def test_a_first_creation_and_a_suspended_service_wait_for_nothing(drawing):
    asked = drawing("two")
    assert not asks_for_weights(asked.spec, body(asked), None)
    asleep = drawing("two", suspend=True)
    assert not asks_for_weights(asleep.spec, body(asleep), body(drawing()))


def test_a_worker_that_fetches_for_itself_is_not_waited_for(drawing):
    """The replica that starts first shows whether the weights can be had."""
    before, after = drawing(cache={}), drawing("two", cache={})
    assert not asks_for_weights(after.spec, body(after), body(before))


def test_a_config_of_another_release_is_other_weights(drawing):
    asked = drawing()
    former = body(asked)
    former["spec"]["serveConfigV2"] = "applications: []"
    assert asks_for_weights(asked.spec, body(asked), former)


@pytest.fixture
def filling(drawing):
    """What is there while weights are fetched on nodes, of which some have them: (spec, DaemonSets, pods)."""

    def build(*ready, cache=CLAIM, settled=True, **container):
        asked = drawing("two", cache)
        (live,) = weights_daemon_sets(asked, SETTINGS)
        live["metadata"]["generation"] = 2
        made = len(ready)
        live["status"] = {"observedGeneration": 2 if settled else 1, "updatedNumberScheduled": made}
        live["status"]["desiredNumberScheduled"] = made
        template = live["spec"]["template"]
        pods = [
            {
                "metadata": {"name": f"pod-{node}", "labels": template["metadata"]["labels"]},
                "spec": {**template["spec"], "nodeName": f"node-{node}"},
                "status": {
                    "conditions": [{"type": "Ready", "status": str(is_ready)}],
                    "containerStatuses": [{"name": "weights", "image": "i", **container}],
                },
            }
            for node, is_ready in enumerate(ready)
        ]
        return asked.spec, [live], pods

    return build


NODES = {f"node-{number}": Node(f"node-{number}") for number in range(3)}


@pytest.mark.parametrize(
    ("ready", "cache", "left"),
    [
        ((True, True), DIRECTORY, None),
        ((True, False), DIRECTORY, Fetching(1, 2)),
        ((True, False), CLAIM, None),
        ((False, False), CLAIM, Fetching(0, 2)),
        ((), CLAIM, None),
    ],
    ids=["everywhere", "each node for itself", "one claim for all", "nowhere", "no node"],
)
def test_each_cache_is_filled_once(filling, ready, cache, left):
    assert fetching(*filling(*ready, cache=cache), NODES) == left


def test_pods_of_the_former_weights_do_not_count(filling):
    spec, daemon_sets, pods = filling(True)
    former = [{**pods[0], "spec": {**pods[0]["spec"], "containers": [{"command": ["other"]}]}}]
    daemon_sets[0]["status"]["updatedNumberScheduled"] = 0
    assert fetching(spec, daemon_sets, former, NODES) == Fetching(0, 0)
    assert fetching(*filling(True, settled=False), NODES) == Fetching(1, 1)


def test_a_node_that_is_not_ready_is_not_waited_for(filling):
    away = {**NODES, "node-1": Node("node-1", is_schedulable=False)}
    assert fetching(*filling(True, False, cache=DIRECTORY), away) is None
    assert fetching(*filling(True, False, cache=DIRECTORY), None) == Fetching(1, 2)


def test_it_reports_how_far_the_weights_are():
    state = fetching_weights(Fetching(1, 3))
    assert (state.status, state.reason) == ("False", "WaitingForWeights")
    assert state.message == (
        "The weights of the last change are on 1 of 3 nodes. The change is applied when they are on all of these nodes."
        " The running replicas stay unchanged until then."
    )


def test_weights_that_cannot_be_had_say_why(filling):
    """The container's last words are the runtime's error."""
    ended = {"exitCode": 1, "reason": "Error", "message": f"downloading\n{ERROR}\n"}
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    found = fetching(*filling(False, state=state, lastState={"terminated": ended}), NODES)
    state = fetching_weights(found)
    assert (state.status, state.reason) == ("False", "ModelNotFound")
    assert state.message == (
        "The weights of the last change cannot be fetched, so the change is not applied: model.uri: got 'hf://owner/none': there is"
        " no such repository"
    )


def test_a_change_whose_weights_cannot_be_had_leaves_the_former_ones_serving(scene, resource):
    failed = fetching_weights(Fetching(0, 1, endings=(ERROR,)))
    held = status.Held(failed, of_spec(resource().spec, "image:1"))
    computed = status.compute(
        resource(), scene.snapshot(serve=scene.serve()), "image:1", Status(), scene.now, held=held
    )
    found = {each.type: (each.status, each.reason) for each in computed.conditions}
    assert found["Ready"] == ("True", "Degraded")
    assert (
        found["ModelAvailable"] == found["ConfigApplied"] == found["Upgrading"] == ("False", "ModelNotFound")
    )
    assert status.requeue_seconds(computed) is not None
