# SPDX-License-Identifier: Apache-2.0
"""Whose an object is (pure)."""

from collections.abc import Mapping
from typing import Any

from sd_operator import naming
from sd_operator.api import KIND
from sd_operator.api.resource import API_VERSION
from sd_operator.drift import owned_fields

Json = Mapping[str, Any]


def owner(live: Json) -> str | None:
    """The uid of the object that controls this one."""
    owners = live["metadata"].get("ownerReferences", [])
    return next((each["uid"] for each in owners if each.get("controller")), None)


def belongs_to(live: Json, uid: str) -> bool:
    """By owner; or by field manager, where someone stripped the owner and it is to be put back.

    Of an object that services share, whether this service is one of them.
    """
    if is_shared(live):
        return uid in {each["uid"] for each in users(live["metadata"])}
    found = owner(live)
    return found == uid or (found is None and bool(owned_fields(live, naming.FIELD_MANAGER)))


def is_shared(live: Json) -> bool:
    """Whether services of a namespace share the object: it carries the label of a shared preload and no controller."""
    return naming.PRELOAD_LABEL in (live["metadata"].get("labels") or {}) and owner(live) is None


def is_ours(live: Json) -> bool:
    """Whether a shared object is the operator's: by its users, or by field manager where someone stripped them."""
    return bool(users(live["metadata"])) or bool(owned_fields(live, naming.FIELD_MANAGER))


def users(metadata: Json) -> list[Json]:
    """References of the services that share an object, by its metadata."""
    return [
        each
        for each in metadata.get("ownerReferences") or []
        if each.get("kind") == KIND and each.get("apiVersion") == API_VERSION
    ]
