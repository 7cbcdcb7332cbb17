# SPDX-License-Identifier: Apache-2.0
"""Which images run where, and which DaemonSets keep them there (pure).

A DaemonSet that a service does not want any more may still keep the image of a cluster that serves: a change waits for its
turn or for its image, a new cluster is coming up, the old one finishes its requests. Decided anew each time from live
objects: the RayService and every RayCluster that is there.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sd_operator.api import Spec
from sd_operator.builders.preload import brings_images, preload_placement
from sd_operator.json_types import Json
from sd_operator.settings import Settings

_WHERE = ("nodeSelector", "tolerations", "affinity", "runtimeClassName")


@dataclass(frozen=True)
class Pin:
    """An image that is to stay on nodes.

    Attributes:
        image: its reference.
        where: nodeSelector, tolerations and so on of the preload pods there, as JSON with sorted keys.
    """

    image: str
    where: str


def pins(
    spec: Spec, settings: Settings, ray_services: Iterable[Json], ray_clusters: Iterable[Json]
) -> frozenset[Pin]:
    """What runs, or is about to, where images are preloaded; nothing where the spec wants no preload.

    Args:
        spec: what is wanted.
        settings: with labels of GPU nodes.
        ray_services: the RayService as it is wanted, and the live one where there is one.
        ray_clusters: its live RayClusters.
    """
    if spec.suspend or not brings_images(spec):
        return frozenset()
    anywhere, found = spec.image_preload.mode == "Required", set[Pin]()
    clusters = [
        *(each["spec"].get("rayClusterConfig") or {} for each in ray_services),
        *(each.get("spec") or {} for each in ray_clusters),
    ]
    for cluster in clusters:
        for group in cluster.get("workerGroupSpecs") or []:
            pod = (group.get("template") or {}).get("spec") or {}
            worker: Json = next(iter(pod.get("containers") or []), {})
            where = preload_placement(pod, _gpu_resource(worker), settings, anywhere=anywhere)
            if where is not None:
                found.add(Pin(worker.get("image", ""), _text(where)))
    return frozenset(found)


def is_needed(live: Json, running: frozenset[Pin], wanted: Iterable[Json]) -> bool:
    """Whether an image runs that this DaemonSet keeps, and none of the wanted ones does.

    Args:
        live: a DaemonSet that is not wanted any more.
        running: what runs.
        wanted: DaemonSets that are wanted and hold their images on every node.
    """
    own, kept = _pin(live), {_pin(each) for each in wanted}
    if own in running:
        return own not in kept
    # By the rules of now it is on no cluster's nodes: a former release, or other labels of GPU nodes, put it where it is.
    return any(pin.image == own.image for pin in running) and all(pin.image != own.image for pin in kept)


def _pin(live: Json) -> Pin:
    """What a DaemonSet keeps where."""
    pod = live["spec"]["template"]["spec"]
    return Pin(pod["containers"][0]["image"], _text({key: pod.get(key) for key in _WHERE}))


def _gpu_resource(container: Json) -> str:
    limits = (container.get("resources") or {}).get("limits") or {}
    return next((name for name in limits if "/" in name), "")


def _text(where: Json) -> str:
    return json.dumps(_without_empty(where), sort_keys=True)


def _without_empty(value: Any) -> Any:
    """What is left of it: a field that is empty may be written or left out by whoever stored the object."""
    if isinstance(value, Mapping):
        return {
            key: kept
            for key, each in value.items()
            if (kept := _without_empty(each)) not in ({}, [], None, "")
        }
    return [_without_empty(each) for each in value] if isinstance(value, list) else value
