# SPDX-License-Identifier: Apache-2.0
"""Builds Kubernetes Events: one for each changed object and each condition that changed (pure)."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sd_operator import naming
from sd_operator.api import KIND, Status
from sd_operator.api.resource import API_VERSION
from sd_operator.excerpts import excerpt

_NOTE_LIMIT = 1024  # bytes; the API server refuses more
_GOOD = {
    "Ready": "True",
    "Accepted": "True",
    "ImagesPreloaded": "True",
    "ModelAvailable": "True",
    "ConfigApplied": "True",
    "Schedulable": "True",
}

_REPORTED_BY_REASON = {"Ready", "ImagesPreloaded"}


@dataclass(frozen=True)
class Note:
    """The content of an Event: reason, message and severity, without the object."""

    reason: str
    message: str
    warning: bool = False


def flips(before: Status, after: Status) -> list[Note]:
    """A note for each condition whose status changed; for Ready and ImagesPreloaded also if the reason changed.

    A new service gets no such notes unless it is refused: the notes about applied objects are enough.
    """
    known = {condition.type: condition for condition in before.conditions}
    is_refused = any(each.type == "Accepted" and each.status == "False" for each in after.conditions)
    notes = []
    for condition in after.conditions:
        old = known.get(condition.type)
        changed = old is None or old.status != condition.status
        if condition.type in _REPORTED_BY_REASON and old is not None:
            changed = changed or old.reason != condition.reason
        if changed and (old is not None or (is_refused and condition.type == "Ready")):
            bad = _GOOD.get(condition.type) == "True" and condition.status == "False"
            notes.append(
                Note(condition.reason, f"{condition.type}={condition.status}: {condition.message}", bad)
            )
    return notes


def event(note: Note, involved: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The Event object for a note about a StableDiffusionService; its name is unique per object and moment."""
    metadata = involved["metadata"]
    seed = f"{metadata['uid']}{note.reason}{note.message}{now.isoformat()}"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(seed.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Warning" if note.warning else "Normal",
        "reason": note.reason,
        "action": "Reconcile",
        "note": excerpt(note.message, _NOTE_LIMIT),
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "reportingController": "sdservice.dev/sd-operator",
        "reportingInstance": naming.FIELD_MANAGER,
    }


def changes(
    applied: Iterable[dict[str, Any]], deleted: Iterable[dict[str, Any]], left: Iterable[dict[str, Any]] = ()
) -> list[Note]:
    """A note for the children that were written, one for those that were deleted, and one for those left to other services."""
    notes = (
        ("Applied", applied, "Applied {}"),
        ("Deleted", deleted, "Deleted {}, which the spec no longer needs"),
        ("Left", left, "Kept {}, which other services still use"),
    )
    named = ((reason, ", ".join(map(_named, children)), words) for reason, children, words in notes)
    return [Note(reason, words.format(names)) for reason, names, words in named if names]


def adjusted(ray_cluster: dict[str, Any], patch: Iterable[dict[str, Any]]) -> Note:
    """A note for what a JSON patch changed in a running RayCluster."""
    fields = [each["path"].removeprefix("/spec/") for each in patch if each["op"] != "test"]
    return Note("Adjusted", f"Adjusted {_named(ray_cluster)}: {', '.join(fields)}")


def removed(ray_cluster: dict[str, Any], *, capacity_is_needed: bool) -> Note:
    """A note for a RayCluster that was deleted before KubeRay's delay had passed."""
    why = "the next cluster needs its capacity" if capacity_is_needed else "no request has reached it"
    return Note("Deleted", f"Deleted the replaced {_named(ray_cluster)}: {why}")


def replaced_in_place(seconds: int) -> Note:
    """A note for replicas that are replaced in place, because no node became available within so many seconds."""
    message = (
        f"No node became available for an additional worker within {seconds} s (upgrade.surgeTimeoutSeconds). Replicas are"
        " now replaced in place: each replica stops before its successor starts."
    )
    return Note("ReplacingInPlace", message, warning=True)


def _named(child: dict[str, Any]) -> str:
    return f"{child.get('kind', 'object')} {child['metadata']['name']}"
