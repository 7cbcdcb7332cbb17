# SPDX-License-Identifier: Apache-2.0
"""Whether a RayService waits for its image to be on the nodes (pure): `spec.imagePreload.mode: Required`.

Decided anew each time from live objects: the images of the RayService, and the preload pods. Since when a service waits
stands in its own status, since services share the DaemonSets. So a restart changes nothing, and a change that is taken
back opens the gate.
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
    """A RayService that is left as it is.

    Attributes:
        since: since when it waits for this image, UTC.
        until: when the deadline is, UTC.
        is_over: it has passed; the RayService is held on.
        seconds: of the deadline.
    """

    since: str
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


def hold(spec: Spec, state: PreloadState, before: Status, now: datetime) -> Hold | None:
    """The hold on a RayService that asks for images; None where they are there.

    Args:
        spec: what is wanted.
        state: how far the images are.
        before: the status on record, which says since when it waits.
        now: the time, UTC.
    """
    if state.runtime_image_is_there:
        return None
    since = _waiting_since(state, before) or times.stamp(now)
    until = times.parsed(since) + timedelta(seconds=spec.image_preload.timeout_seconds)
    return Hold(since, times.stamp(until), now >= until, spec.image_preload.timeout_seconds)


def _waiting_since(state: PreloadState, before: Status) -> str | None:
    """Since when it is on record to wait for this image."""
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
