# SPDX-License-Identifier: Apache-2.0
"""Decides whether a RayService waits until its image is on the nodes (pure): `spec.imagePreload.mode: Required`.

Each pass decides again from live objects: the images of the RayService, and the preload pods. A restart therefore changes
nothing, and a reverted change opens the gate. The start of the wait is recorded in the status of the service, because
services share the DaemonSets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sd_operator import times
from sd_operator.api import Spec, Status
from sd_operator.json_types import Json
from sd_operator.observe.preload_state import PreloadState


@dataclass(frozen=True)
class Hold:
    """The hold on a RayService whose image is not on all nodes.

    Attributes:
        since: start of the wait for this image, UTC.
        until: the deadline, UTC.
        is_over: whether the deadline has passed; the RayService stays on hold.
        seconds: seconds from the start of the wait to the deadline.
    """

    since: str
    until: str
    is_over: bool
    seconds: int


def asks_for_images(spec: Spec, wanted: Json, live: Json | None) -> bool:
    """Whether the desired RayService has a new image that must be on the nodes first.

    Args:
        spec: the spec.
        wanted: the desired RayService.
        live: the live RayService; None if there is none.
    """
    if spec.suspend or spec.image_preload.mode != "Required":
        return False
    if live is not None and spec.upgrade.strategy == "InPlaceOnly":
        return False  # this strategy changes no pod
    return not set(_images(wanted)) <= set(_images(live or {}))


def hold(spec: Spec, state: PreloadState, before: Status, now: datetime) -> Hold | None:
    """The hold on a RayService with a new image; None if the image is on all nodes.

    Args:
        spec: the spec.
        state: the state of the images on the nodes.
        before: the recorded status, which has the start of the wait.
        now: the time, UTC.
    """
    if state.runtime_image_is_there:
        return None
    since = _waiting_since(state, before) or times.stamp(now)
    until = times.parsed(since) + timedelta(seconds=spec.image_preload.timeout_seconds)
    return Hold(since, times.stamp(until), now >= until, spec.image_preload.timeout_seconds)


def _waiting_since(state: PreloadState, before: Status) -> str | None:
    """The recorded start of the wait for this image; None if there is none."""
    recorded = before.preload
    if recorded is None or not recorded.images or not state.images:
        return None
    return recorded.waiting_since if recorded.images[0].image == state.images[0].image else None


def _images(ray_service: Json) -> Iterator[str]:
    cluster = (ray_service.get("spec") or {}).get("rayClusterConfig") or {}
    for group in (cluster.get("headGroupSpec") or {}, *(cluster.get("workerGroupSpecs") or [])):
        pod = (group.get("template") or {}).get("spec") or {}
        for container in (*pod.get("initContainers", []), *pod.get("containers", [])):
            yield container.get("image", "")
