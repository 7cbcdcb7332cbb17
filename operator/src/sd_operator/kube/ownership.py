# SPDX-License-Identifier: Apache-2.0
"""Decides which service an object belongs to (pure)."""

from collections.abc import Mapping
from typing import Any

from sd_operator import naming
from sd_operator.api import KIND
from sd_operator.api.resource import API_VERSION
from sd_operator.errors import NameConflict, WaitingForDeletion
from sd_operator.json_types import Json
from sd_operator.kube.drift import owned_fields


def owner(live: Json) -> str | None:
    """The uid of the object that controls this one; None if there is none."""
    found = _controller(live)
    return None if found is None else str(found["uid"])


def belongs_to(live: Json, uid: str) -> bool:
    """Whether an object belongs to the service with this uid.

    The owner decides. If another client has removed the owner, the field manager decides, and the owner is restored. An
    object that services share belongs to each of its users.
    """
    if is_shared(live):
        return uid in {each["uid"] for each in users(live["metadata"])}
    found = owner(live)
    return found == uid or (found is None and bool(owned_fields(live, naming.FIELD_MANAGER)))


def conflict(live: Json, kind: str, service: str) -> NameConflict | WaitingForDeletion:
    """The error for an object that has a name which a service needs, and that does not belong to the service.

    Args:
        live: the object.
        kind: its kind.
        service: name of the service.
    """
    name, found = live["metadata"]["name"], _controller(live) or {}
    former = (found.get("apiVersion"), found.get("kind"), found.get("name")) == (API_VERSION, KIND, service)
    since = live["metadata"].get("deletionTimestamp")
    if not (former or since):
        return NameConflict(
            f"{kind} {name} exists and is not part of this service, so the operator does not change it. Delete or rename"
            " it, or give this service another name."
        )
    whose = "belongs to the former, deleted service of this name" if former else "is not part of this service"
    removed = f"has been terminating since {since}" if since else "is not deleted yet"
    remover = "KubeRay" if kind == "RayService" else "the garbage collector of kube-controller-manager"
    return WaitingForDeletion(
        f"{kind} {name} {whose} and {removed}. This service starts automatically when {kind} {name} is gone. If that takes"
        f" longer than minutes, check that {remover} runs, and which finalizers {kind} {name} has."
    )


def _controller(live: Json) -> Json | None:
    owners = live["metadata"].get("ownerReferences") or []
    return next((each for each in owners if each.get("controller")), None)


def is_shared(live: Json) -> bool:
    """Whether services of a namespace share the object: it has the label of a shared preload and no controller."""
    return naming.PRELOAD_LABEL in (live["metadata"].get("labels") or {}) and owner(live) is None


def is_ours(live: Json) -> bool:
    """Whether a shared object is the operator's: by its users, or by its field manager if another client removed them."""
    return bool(users(live["metadata"])) or bool(owned_fields(live, naming.FIELD_MANAGER))


def users(metadata: Mapping[str, Any]) -> list[Json]:
    """Owner references of the services that share an object."""
    return [
        each
        for each in metadata.get("ownerReferences") or []
        if each.get("kind") == KIND and each.get("apiVersion") == API_VERSION
    ]


def is_preload(live: Json) -> bool:
    """Whether a child is a DaemonSet that keeps images on nodes, of this release or of an earlier one."""
    component = _component(live)
    return component == naming.PRELOAD or component.startswith(f"{naming.PRELOAD}-")


def fills_cache(live: Json) -> bool:
    """Whether a child is a DaemonSet that fetches weights into a cache that workers share."""
    return _component(live).startswith(f"{naming.WEIGHTS}-")


def _component(live: Json) -> str:
    """The component label of a DaemonSet's pods; empty for any other kind."""
    if live["kind"] != "DaemonSet":
        return ""
    labels = live["spec"]["template"]["metadata"].get("labels") or {}
    return str(labels.get(naming.COMPONENT_LABEL, ""))
