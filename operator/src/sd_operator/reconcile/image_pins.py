# SPDX-License-Identifier: Apache-2.0
"""Decides which former preload DaemonSets must stay, because they keep an image that still runs (pure).

A DaemonSet that is no longer desired may still keep the image of a serving cluster. Examples: a change is on hold, a new
cluster is starting, or the old cluster finishes its requests. Each pass decides again from live objects: the RayService
and all of its RayClusters.
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
    """An image that must stay on nodes.

    Attributes:
        image: reference of the image.
        where: placement of its preload pods (nodeSelector, tolerations and so on), as JSON with sorted keys.
    """

    image: str
    where: str


def pins(
    spec: Spec, settings: Settings, ray_services: Iterable[Json], ray_clusters: Iterable[Json]
) -> frozenset[Pin]:
    """The images that run or are about to run, by placement; empty if the spec has no preload.

    Args:
        spec: the spec.
        settings: the settings with the labels of GPU nodes.
        ray_services: the desired RayService, and the live one if it exists.
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
    """Whether this DaemonSet alone keeps an image that still runs.

    Args:
        live: a DaemonSet that is no longer desired.
        running: the images that run.
        wanted: desired DaemonSets whose images are on every node.
    """
    own, kept = _pin(live), {_pin(each) for each in wanted}
    if own in running:
        return own not in kept
    # Its placement matches no running cluster: a former release, or other labels of GPU nodes, led to it.
    return any(pin.image == own.image for pin in running) and all(pin.image != own.image for pin in kept)


def _pin(live: Json) -> Pin:
    """The image that a DaemonSet keeps, with its placement."""
    pod = live["spec"]["template"]["spec"]
    return Pin(pod["containers"][0]["image"], _text({key: pod.get(key) for key in _WHERE}))


def _gpu_resource(container: Json) -> str:
    limits = (container.get("resources") or {}).get("limits") or {}
    return next((name for name in limits if "/" in name), "")


def _text(where: Json) -> str:
    return json.dumps(_without_empty(where), sort_keys=True)


def _without_empty(value: Any) -> Any:
    """The value without empty fields, because a stored object may have an empty field or lack it."""
    if isinstance(value, Mapping):
        return {
            key: kept
            for key, each in value.items()
            if (kept := _without_empty(each)) not in ({}, [], None, "")
        }
    return [_without_empty(each) for each in value] if isinstance(value, list) else value
