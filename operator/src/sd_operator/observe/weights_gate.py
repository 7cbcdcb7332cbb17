# SPDX-License-Identifier: Apache-2.0
"""Decides whether a change of the weights waits until they are fetched, so that no replica is replaced before (pure).

The change waits if workers share a cache that preload pods fill: a claim, or a directory of the node. Without such a cache
each worker fetches the weights itself, and the replica that starts first shows whether they can be fetched.
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
    """The progress of weights that are not fetched completely.

    Attributes:
        ready: number of nodes that have the weights.
        matched: number of nodes that need the weights.
        problems: problems that keep pods from fetching them.
        endings: the last lines of containers that failed to fetch them.
    """

    ready: int
    matched: int
    problems: tuple[PodProblem, ...] = ()
    endings: tuple[str, ...] = ()


def asks_for_weights(spec: Spec, wanted: Json, live: Json | None) -> bool:
    """Whether the desired RayService has new weights that must be fetched first.

    Args:
        spec: the spec.
        wanted: the desired RayService.
        live: the live RayService; None if there is none.
    """
    if live is None or spec.suspend or not is_filled_beforehand(spec):
        return False
    texts = [each["spec"].get("serveConfigV2", "") for each in (live, wanted)]
    return texts[0] != texts[1] and _weights(texts[0]) != _weights(texts[1])


def fetching(
    spec: Spec, daemon_sets: Iterable[Json], pods: Iterable[Json], nodes: Mapping[str, Node] | None
) -> Fetching | None:
    """The progress of the weights; None if they are fetched.

    One pod is enough if all workers share a claim. Nodes that are not ready do not count.

    Args:
        spec: the spec.
        daemon_sets: the live DaemonSets that fetch its weights, as the pass has applied them.
        pods: pods of the service, including those of other components.
        nodes: all nodes by name; None if the operator may not read them.
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
        return None  # another release of the operator wrote it in another form


def _current(live: Json, pods: Iterable[Json]) -> Iterator[Json]:
    """Pods of a DaemonSet that fetch its current weights."""
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
    """The last lines of a container that ended with an error, once or repeatedly; empty if there is none."""
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        for state in (container.get("state") or {}, container.get("lastState") or {}):
            if message := (state.get("terminated") or {}).get("message"):
                return str(message)
    return ""


def _is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _is_settled(live: Json) -> bool:
    """Whether the DaemonSet controller has created the current pods."""
    status, generation = live.get("status") or {}, live["metadata"].get("generation", 1)
    made, wanted = status.get("updatedNumberScheduled", 0), status.get("desiredNumberScheduled", 0)
    return bool(status.get("observedGeneration", 0) >= generation and made >= wanted)
