# SPDX-License-Identifier: Apache-2.0
"""Whose an object is (pure)."""

from collections.abc import Mapping
from typing import Any

from sd_operator import naming
from sd_operator.drift import owned_fields

Json = Mapping[str, Any]


def owner(live: Json) -> str | None:
    """The uid of the object that controls this one."""
    owners = live["metadata"].get("ownerReferences", [])
    return next((each["uid"] for each in owners if each.get("controller")), None)


def belongs_to(live: Json, uid: str) -> bool:
    """By owner; or by field manager, where someone stripped the owner and it is to be put back."""
    found = owner(live)
    return found == uid or (found is None and bool(owned_fields(live, naming.FIELD_MANAGER)))
