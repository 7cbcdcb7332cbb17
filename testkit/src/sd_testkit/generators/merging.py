# SPDX-License-Identifier: Apache-2.0
"""Merge changes over an object, as a user's edit does (pure)."""

from sd_testkit.json_types import Json


def merged(base: Json, patch: Json) -> Json:
    """Merge as a JSON merge patch does: null removes, mappings merge, everything else replaces."""
    result = dict(base)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result
