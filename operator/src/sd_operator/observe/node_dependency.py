# SPDX-License-Identifier: Apache-2.0
"""The node facts on which the status of a service depends (pure).

A change of a node then leads to a pass over these services only.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from sd_operator.api import Spec
from sd_operator.api.capacity import gpus_per_worker
from sd_operator.builders.placement import worker_placement
from sd_operator.json_types import Json
from sd_operator.observe.node_matching import accepts
from sd_operator.observe.nodes import Node, holds

_PLACEMENT = ("nodeSelector", "affinity", "tolerations")


class Group(NamedTuple):
    """Pods of one placement: nodeSelector, affinity and tolerations as JSON, and the devices that each pod needs."""

    placement: str
    resource: str = ""
    devices: int = 0


@dataclass(frozen=True)
class NodeDependency:
    """The nodes and images on which one service depends; services with the same placement and images have equal values.

    Attributes:
        groups: a node counts if it accepts pods of one of them.
        images: references of the images.
        verified: whether the nodes' image lists decide; otherwise they only show that an image was lost.
    """

    groups: tuple[Group, ...]
    images: tuple[str, ...]
    verified: bool = False


def of_daemon_sets(daemon_sets: Iterable[Json]) -> NodeDependency | None:
    """The dependency of a service whose images these preload DaemonSets pull; None if there are no DaemonSets."""
    pods = [live["spec"]["template"]["spec"] for live in daemon_sets]
    images = {container["image"] for pod in pods for container in pod["containers"]}
    groups = {Group(_text(pod)) for pod in pods}
    return NodeDependency(tuple(sorted(groups)), tuple(sorted(images))) if pods else None


def of_spec(spec: Spec, images: Iterable[str]) -> NodeDependency:
    """The dependency of a service whose images are provided outside the operator (mode External).

    Args:
        spec: the spec.
        images: references of the images.
    """
    groups = (
        Group(_text(worker_placement(spec, group)), spec.gpu_resource_name, gpus_per_worker(spec, group))
        for group in spec.worker_groups
    )
    return NodeDependency(tuple(groups), tuple(images), verified=True)


def concerns(
    dependency: NodeDependency, changes: Iterable[tuple[Node | None, Node | None]], most_listed: int
) -> bool:
    """Whether one of these changes of nodes may change the status of a service.

    Args:
        dependency: the dependency of the service.
        changes: each node before and after the change; None if it did not or does not exist.
        most_listed: maximum of images that a kubelet lists; -1: all.
    """
    return any(
        _facts(dependency, before, most_listed) != _facts(dependency, after, most_listed)
        for before, after in changes
    )


def _facts(dependency: NodeDependency, node: Node | None, most_listed: int) -> tuple[bool | None, ...] | None:
    """The facts about the images on this node on which a status depends; None for a node that does not count."""
    if node is None or not node.is_schedulable or not any(_takes(node, each) for each in dependency.groups):
        return None
    found = (holds(node, image, most_listed) for image in dependency.images)
    return tuple(found) if dependency.verified else tuple(held is not False for held in found)


def _takes(node: Node, group: Group) -> bool:
    has_devices = not group.devices or node.offers(group.resource) >= group.devices
    return has_devices and accepts(node, _placement(group.placement))


def _text(pod: Json) -> str:
    return json.dumps({key: pod[key] for key in _PLACEMENT if pod.get(key)}, sort_keys=True)


@lru_cache(1024)
def _placement(text: str) -> Json:
    placement: Json = json.loads(text)
    return placement
