# SPDX-License-Identifier: Apache-2.0
"""Whether a live object differs from what we want (pure).

Two things count: a field we want has another value, or a field we applied earlier is no longer wanted. The second
is read from `metadata.managedFields`; fields that others own are theirs. A wrong "yes" costs one apply that changes
nothing, so values that the API server normalizes need no special care here.
"""

import json
from collections.abc import Mapping
from typing import Any

Json = Any


def differs(wanted: Mapping[str, Json], live: Mapping[str, Json], manager: str) -> bool:
    """Tell whether server-side apply of `wanted` by `manager` would change `live`."""
    comparable = {key: value for key, value in wanted.items() if key != "status"}
    return not _contains(live, comparable) or _owns_more(owned_fields(live, manager), comparable)


def owned_fields(live: Mapping[str, Json], manager: str) -> Mapping[str, Json]:
    """The fields that `manager` applied, in the API server's FieldsV1 form."""
    for entry in live.get("metadata", {}).get("managedFields", []):
        if (
            entry.get("manager") == manager
            and entry.get("operation") == "Apply"
            and not entry.get("subresource")
        ):
            fields: Mapping[str, Json] = entry.get("fieldsV1", {})
            return fields
    return {}


def _contains(live: Json, wanted: Json) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            key in live and _contains(live[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(live, list) and len(live) == len(wanted) and all(map(_contains, live, wanted))
    return bool(live == wanted)


def _owns_more(fields: Mapping[str, Json], wanted: Json) -> bool:
    """Tell whether FieldsV1 names a field that `wanted` does not have."""
    for key, inner in fields.items():
        if key == ".":
            continue
        found, value = _follow(key, wanted)
        if not found or _owns_more(inner, value):
            return True
    return False


def _follow(key: str, wanted: Json) -> tuple[bool, Json]:
    kind, _, selector = key.partition(":")
    if kind == "f":
        return (
            (True, wanted[selector]) if isinstance(wanted, Mapping) and selector in wanted else (False, None)
        )
    if not isinstance(wanted, list):
        return False, None
    if kind == "i":
        return (int(selector) < len(wanted)), wanted[int(selector)] if int(selector) < len(wanted) else None
    sought = json.loads(selector)
    for item in wanted:
        if item == sought or (kind == "k" and _has_keys(item, sought)):
            return True, item
    return False, None


def _has_keys(item: Json, keys: Mapping[str, Json]) -> bool:
    """List keys may be defaulted by the API server (`protocol: TCP`); an absent one matches."""
    return isinstance(item, Mapping) and all(item.get(key, value) == value for key, value in keys.items())
