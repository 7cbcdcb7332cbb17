# SPDX-License-Identifier: Apache-2.0
"""Whether a change of the weights waits until they are fetched, so that no replica is touched before (pure).

It waits where workers share a cache that preload pods fill: a claim, or a directory of the node. Elsewhere each worker
fetches for itself, and the replica that starts first shows whether the weights can be had.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import yaml

from sd_operator import naming
from sd_operator.api import Spec
from sd_operator.builders.cache import is_filled_beforehand
from sd_operator.json_types import Json
from sd_operator.observe import pod_problems
from sd_operator.observe.nodes import Node
from sd_operator.observe.pod_problems import PodProblem

_WEIGHTS = ("model", "loras")


@dataclass(frozen=True)
class Fetching:
    """Weights that are not all there.

    Attributes:
        ready: nodes that have them; of `matched` nodes that need them.
        problems: what keeps pods from fetching them.
        endings: the last lines of containers that failed to.
    """

    ready: int
    matched: int
    problems: tuple[PodProblem, ...] = ()
    endings: tuple[str, ...] = ()


def asks_for_weights(spec: Spec, wanted: Json, live: Json | None) -> bool:
    """Whether the RayService would have replicas load other weights than the live one, and is to wait for them.

    Args:
        spec: what is wanted.
        wanted: the RayService of that.
        live: the live one, None where there is none.
    """
    if live is None or spec.suspend or not is_filled_beforehand(spec):
        return False
    texts = [each["spec"].get("serveConfigV2", "") for each in (live, wanted)]
    return texts[0] != texts[1] and _weights(texts[0]) != _weights(texts[1])


def fetching(
    spec: Spec, daemon_sets: Iterable[Json], pods: Iterable[Json], nodes: Mapping[str, Node] | None
) -> Fetching | None:
    """How far the weights are; None where they are there.

    One pod is enough where all share a claim. Nodes that are not ready do not count.

    Args:
        spec: what is wanted.
        daemon_sets: the live DaemonSets that fetch its weights, as the pass has applied them.
        pods: pods of the service, those of other components too.
        nodes: all nodes by name; None where they may not be read.
    """
    found = [pod for live in daemon_sets for pod in _current(live, pods) if _counts(pod, nodes)]
    settled = all(map(_is_settled, daemon_sets))
    ready = sum(map(_is_ready, found))
    enough = min(1, len(found)) if spec.model.cache.persistent_volume_claim else len(found)
    if settled and ready >= enough:
        return None
    problems = tuple(filter(None, map(pod_problems.of_pod, found)))
    return Fetching(ready, len(found), problems, tuple(filter(None, map(_ending, found))))


def _weights(text: str) -> Json | None:
    try:
        (application,) = yaml.safe_load(text)["applications"]
        return {key: application["args"].get(key) for key in _WEIGHTS}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        return None  # of a release that wrote it otherwise


def _current(live: Json, pods: Iterable[Json]) -> Iterator[Json]:
    """Pods of a DaemonSet that fetch what it asks for now."""
    template = live["spec"]["template"]
    component = template["metadata"]["labels"][naming.COMPONENT_LABEL]
    command = template["spec"]["containers"][0]["command"]
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        is_its = (
            labels.get(naming.COMPONENT_LABEL) == component and "deletionTimestamp" not in pod["metadata"]
        )
        if is_its and pod["spec"]["containers"][0].get("command") == command:
            yield pod


def _counts(pod: Json, nodes: Mapping[str, Node] | None) -> bool:
    node = pod["spec"].get("nodeName", "")
    return nodes is None or node not in nodes or nodes[node].is_schedulable


def _ending(pod: Json) -> str:
    """The last lines of a container that ended with an error, or does so again and again."""
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        for state in (container.get("state") or {}, container.get("lastState") or {}):
            if message := (state.get("terminated") or {}).get("message"):
                return str(message)
    return ""


def _is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _is_settled(live: Json) -> bool:
    """The DaemonSet controller has made the pods of now."""
    status, generation = live.get("status") or {}, live["metadata"].get("generation", 1)
    made, wanted = status.get("updatedNumberScheduled", 0), status.get("desiredNumberScheduled", 0)
    return bool(status.get("observedGeneration", 0) >= generation and made >= wanted)
