# SPDX-License-Identifier: Apache-2.0
"""Whether the workers of a second cluster find GPUs on the nodes there are (pure).

An estimate: it counts GPUs, selectors, required node affinity and taints, and nothing else that a scheduler knows.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sd_operator import naming
from sd_operator.api import Spec
from sd_operator.api.capacity import gpus_per_worker, worker_bounds
from sd_operator.builders.placement import worker_placement
from sd_operator.node_fit import accepts
from sd_operator.nodes import is_schedulable

Json = Mapping[str, Any]

_ENDED = {"Succeeded", "Failed"}


def shortage(spec: Spec, cluster: str, nodes: Iterable[Json], pods: Iterable[Json]) -> str:
    """What is missing for the workers that a RayCluster starts with, as a sentence; empty where all find room.

    Args:
        spec: what is wanted.
        cluster: name of the RayCluster that comes up.
        nodes: all nodes.
        pods: the pods of all namespaces that hold a device, or more of them.
    """
    pods = [pod for pod in pods if _stays(pod)]
    placed = Counter(
        pod["metadata"]["labels"].get("ray.io/group") for pod in pods if _is_placed(pod, cluster)
    )
    nodes = [node for node in nodes if is_schedulable(node)]
    free = {node["metadata"]["name"]: _gpus(node["status"].get("allocatable"), spec) for node in nodes}
    for pod in pods:
        name = pod["spec"].get("nodeName")
        if name in free:
            free[name] -= _requested(pod, spec)
    wanted = missing = lacking = 0
    for group, bounds in zip(spec.worker_groups, worker_bounds(spec), strict=True):
        size, placement = gpus_per_worker(spec, group), worker_placement(spec, group)
        fitting = [node["metadata"]["name"] for node in nodes if accepts(node, placement)]
        for _ in range(bounds.low - placed[group.name] if size else 0):
            wanted += 1
            # The fullest node that still has room, as a scheduler that packs would take.
            room = min((name for name in fitting if free[name] >= size), key=free.__getitem__, default=None)
            if room is None:
                missing, lacking = missing + 1, lacking + size
            else:
                free[room] -= size
    if not missing:
        return ""
    return (
        f"{missing} of the {wanted} workers it still has to start find no room: the nodes that match lack"
        f" {lacking} {spec.gpu_resource_name}; add nodes (an autoscaler may), free GPUs, or take the change back"
    )


def holds_a_device(pod: Json) -> bool:
    """Whether a pod is on a node and has extended resources there: those are the names with a slash."""
    if (pod.get("status") or {}).get("phase") in _ENDED or not pod["spec"].get("nodeName"):
        return False
    containers = [*pod["spec"].get("containers", []), *pod["spec"].get("initContainers", [])]
    return any(
        "/" in name for each in containers for name in (each.get("resources") or {}).get("limits") or {}
    )


def _stays(pod: Json) -> bool:
    """Neither ended nor a placeholder, which any worker evicts."""
    labels = pod["metadata"].get("labels") or {}
    is_placeholder = labels.get(naming.COMPONENT_LABEL) == naming.WARM and naming.NAME_LABEL in labels
    return (pod.get("status") or {}).get("phase") not in _ENDED and not is_placeholder


def _is_placed(pod: Json, cluster: str) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return labels.get("ray.io/cluster") == cluster and bool(pod["spec"].get("nodeName"))


def _gpus(amounts: Json | None, spec: Spec) -> int:
    return int((amounts or {}).get(spec.gpu_resource_name, 0))


def _requested(pod: Json, spec: Spec) -> int:
    """Extended resources are requested as they are limited, and init containers run before the others."""

    def of(kind: str) -> list[int]:
        containers = pod["spec"].get(kind, [])
        return [_gpus((each.get("resources") or {}).get("limits"), spec) for each in containers]

    return max([sum(of("containers")), *of("initContainers")])
