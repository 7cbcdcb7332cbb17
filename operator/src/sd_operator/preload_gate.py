# SPDX-License-Identifier: Apache-2.0
"""Whether a RayService waits for its image to be on the nodes (pure): `spec.imagePreload.mode: Required`.

Decided anew each time from live objects: the images of the RayService, the preload pods, and when the DaemonSets were
last changed. So a restart changes nothing, and a change that is taken back opens the gate.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sd_operator import times
from sd_operator.api import Spec
from sd_operator.preload_state import PreloadState

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Hold:
    """A RayService that is left as it is.

    Attributes:
        until: when the deadline is, UTC.
        is_over: it has passed; the RayService is held on.
        seconds: of the deadline.
    """

    until: str
    is_over: bool
    seconds: int


def asks_for_images(spec: Spec, wanted: Json, live: Json | None) -> bool:
    """Whether the RayService would start pods of an image that the live one does not have, and is to wait for it.

    Args:
        spec: what is wanted.
        wanted: the RayService of that.
        live: the live one, None where there is none.
    """
    if spec.suspend or spec.image_preload.mode != "Required":
        return False
    if live is not None and spec.upgrade.strategy == "InPlaceOnly":
        return False  # no pod changes
    return not set(_images(wanted)) <= set(_images(live or {}))


def hold(spec: Spec, state: PreloadState, now: datetime) -> Hold | None:
    """The hold on a RayService that asks for images; None where they are there.

    Args:
        spec: what is wanted.
        state: how far the images are.
        now: the time, UTC.
    """
    if state.runtime_image_is_there:
        return None
    seconds = spec.image_preload.timeout_seconds
    until = (times.parsed(state.since) if state.since else now) + timedelta(seconds=seconds)
    return Hold(times.stamp(until), now >= until, seconds)


def _images(ray_service: Json) -> Iterator[str]:
    cluster = (ray_service.get("spec") or {}).get("rayClusterConfig") or {}
    for group in (cluster.get("headGroupSpec") or {}, *(cluster.get("workerGroupSpecs") or [])):
        pod = (group.get("template") or {}).get("spec") or {}
        for container in (*pod.get("initContainers", []), *pod.get("containers", [])):
            yield container.get("image", "")
