# SPDX-License-Identifier: Apache-2.0
"""Every field of the resource with another value for it, read from the CRD's schema (pure).

Booleans, enums and bounded numbers find their other value in the schema; what has a form of its own needs a sample.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sd_testkit.generators.merging import merged
from sd_testkit.json_types import Json


@dataclass(frozen=True)
class Sample:
    """How a field is changed.

    Attributes:
        value: what it is changed to; None: found in the schema.
        given: what else the spec must say for the change to be valid or to show; merged over the base.
        admits: for a field that only lets other values in: a change of the spec that is refused without it.
    """

    value: Any = None
    given: Json = field(default_factory=dict)
    admits: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One field, from one valid spec to another that differs in it alone.

    Attributes:
        admits: a merge patch that is valid after the change and refused before it; empty where there is none.
    """

    path: str
    before: Json
    after: Json
    admits: Json


class NoSample(Exception):
    """The schema gives no other value for a field, and neither does a sample."""


def changes(schema: Json, base: Json, items: Mapping[str, Json], samples: Mapping[str, Json]) -> list[Change]:
    """A change of every field of the spec.

    Args:
        schema: of the spec.
        base: a valid spec.
        items: what the first item of a list is where there is none, by the list's path with `[]` or the end of it.
        samples: by path, or by `*` and the end of a path.

    Raises:
        NoSample: a field has neither.
    """
    return [_change(each, base, items, samples) for each in leaves(schema)]


def _change(leaf: "Field", base: Json, items: Mapping[str, Json], samples: Mapping[str, Json]) -> Change:
    sample = Sample(**_named(samples, leaf.path))
    before = merged(base, sample.given)
    for found in re.finditer(r"\[\]", leaf.path):
        path = leaf.path[: found.end()]
        if value_at(before, path) is None:
            before = with_value(before, path, _named(items, path))
    value = sample.value
    if value is None:
        present = value_at(before, leaf.path)
        value = leaf.other_than(leaf.schema.get("default") if present is None else present)
    if value is None:
        raise NoSample(f"{leaf.path}: give it another value in tests/data/fields.yaml")
    return Change(leaf.path, before, with_value(before, leaf.path, value), sample.admits)


def _named(known: Mapping[str, Json], path: str) -> Json:
    """What is known of a path, by itself or by its end; empty where nothing is."""
    for key, each in known.items():
        if path.endswith(key[1:]) if key.startswith("*") else path == key:
            return each
    return {}


@dataclass(frozen=True)
class Field:
    """A leaf of the schema; `[]` in a path stands for the first item of a list."""

    path: str
    schema: Json

    def other_than(self, present: Any) -> Any:
        """Another valid value, None where the schema alone gives none."""
        schema = self.schema
        if "enum" in schema:
            return next((each for each in schema["enum"] if each != present), None)
        if schema.get("type") == "boolean":
            return not present
        if schema.get("type") in {"integer", "number"}:
            step = schema.get("multipleOf", 1)
            low, high = schema.get("minimum"), schema.get("maximum")
            base = present if present is not None else low if low is not None else step
            return base + step if high is None or base + step <= high else base - step
        return None


def leaves(schema: Json, path: str = "") -> Iterator[Field]:
    """Every field below an object's schema that has no fields of its own."""
    if schema.get("type") == "object" and schema.get("properties"):
        for name, below in schema["properties"].items():
            yield from leaves(below, f"{path}.{name}" if path else name)
    elif schema.get("type") == "array" and schema["items"].get("properties"):
        yield from leaves(schema["items"], f"{path}[]")
    else:
        yield Field(path, schema)


def value_at(spec: Mapping[str, Any], path: str) -> Any:
    """The value of a field; None where it is absent."""
    found: Any = spec
    for step in _steps(path):
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError):
            return None
    return found


def with_value(spec: Mapping[str, Any], path: str, value: Any) -> Json:
    """A copy of the spec in which the field has the value."""
    changed = copy.deepcopy(dict(spec))
    steps = _steps(path)
    place: Any = changed
    for step, following in pairwise(steps):
        _make_room(place, step, [] if isinstance(following, int) else {})
        place = place[step]
    _make_room(place, steps[-1], None)
    place[steps[-1]] = value
    return changed


def _make_room(place: Any, step: str | int, empty: Any) -> None:
    if isinstance(step, str):
        place.setdefault(step, empty)
    elif len(place) <= step:
        place.append(empty)


def _steps(path: str) -> list[str | int]:
    parts = re.findall(r"[^.\[\]]+|\[\]", path)
    return [0 if part == "[]" else part for part in parts]
