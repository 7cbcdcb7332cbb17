# SPDX-License-Identifier: Apache-2.0
"""Decides whether a live object differs from the desired one (pure).

Only fields that the operator owns by `metadata.managedFields` are compared. A desired field must be owned and have the
desired value, and an owned field must still be desired. Below a field that is owned as a whole (an atomic list) everything
must be equal; elsewhere, fields of other managers are ignored. A wrong "yes" costs one apply that changes nothing, so
values that the API server normalizes or defaults need no special care here.
"""

import json
from collections.abc import Mapping
from typing import Any

Fields = Mapping[str, Any]

_IDENTITY = {"apiVersion", "kind", "status"}
_METADATA = {"labels", "annotations", "ownerReferences"}


def needs_apply(wanted: Mapping[str, Any], live: Mapping[str, Any], manager: str) -> bool:
    """Whether server-side apply of `wanted` by `manager` would change `live`."""
    mine = {key: value for key, value in wanted.items() if key not in _IDENTITY}
    mine["metadata"] = {key: value for key, value in wanted["metadata"].items() if key in _METADATA}
    fields = owned_fields(live, manager)
    return not _is_applied(mine, live, fields) or _owns_more(fields, mine)


def owned_fields(live: Mapping[str, Any], manager: str) -> Fields:
    """The fields that `manager` applied, in the API server's FieldsV1 form."""
    for entry in live.get("metadata", {}).get("managedFields", []):
        applied = entry.get("operation") == "Apply" and not entry.get("subresource")
        if entry.get("manager") == manager and applied:
            fields: Fields = entry.get("fieldsV1", {})
            return fields
    return {}


def _is_applied(wanted: Any, live: Any, fields: Fields) -> bool:
    """Whether a value is live and owned; `fields` are the owned fields below it."""
    inner = {key: value for key, value in fields.items() if key != "."}
    if not inner:
        return bool(live == wanted)
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        return all(
            key in live and _field_is_applied(value, live[key], inner.get(f"f:{key}"))
            for key, value in wanted.items()
        )
    if isinstance(wanted, list) and isinstance(live, list):
        return all(_item_is_applied(item, live, inner) for item in wanted)
    return False


def _field_is_applied(wanted: Any, live: Any, fields: Fields | None) -> bool:
    if fields is None:
        # The API server records no owner of an empty merged list, because it has nothing to own.
        return wanted in ([], {}) and bool(live == wanted)
    return _is_applied(wanted, live, fields)


def _item_is_applied(item: Any, live: list[Any], fields: Fields) -> bool:
    """Whether an item of a list that is merged by keys or values is live and owned: an owned selector finds it."""
    for selector, inner in fields.items():
        if _follow(selector, [item])[0]:
            found, counterpart = _follow(selector, live)
            return found and _is_applied(item, counterpart, inner)
    return False


def _owns_more(fields: Fields, wanted: Any) -> bool:
    """Whether FieldsV1 names a field that `wanted` does not have."""
    for key, inner in fields.items():
        if key == ".":
            continue
        found, value = _follow(key, wanted)
        if not found or _owns_more(inner, value):
            return True
    return False


def _follow(key: str, value: Any) -> tuple[bool, Any]:
    """Find the value that one step of a FieldsV1 path names: f:field, k:{keys}, v:value or i:index."""
    kind, _, selector = key.partition(":")
    if kind == "f":
        return (True, value[selector]) if isinstance(value, Mapping) and selector in value else (False, None)
    if not isinstance(value, list):
        return False, None
    if kind == "i":
        index = int(selector)
        return (True, value[index]) if index < len(value) else (False, None)
    sought = json.loads(selector)
    for item in value:
        if item == sought or (kind == "k" and _has_keys(item, sought)):
            return True, item
    return False, None


def _has_keys(item: Any, keys: Mapping[str, Any]) -> bool:
    return isinstance(item, Mapping) and all(item.get(key) == value for key, value in keys.items())
