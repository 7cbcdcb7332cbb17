# SPDX-License-Identifier: Apache-2.0
"""Every field of the resource with a second valid value, derived from the CRD's schema (pure).

The schema gives the second value of booleans, enums and bounded numbers. A field with its own format needs a sample.
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
    """How a test changes a field.

    Attributes:
        value: the new value; None: the schema gives one.
        given: other parts of the spec that the change needs to be valid or visible; merged over the base.
        admits: for a field that only permits other values: a change of the spec that is refused without this field.
    """

    value: Any = None
    given: Json = field(default_factory=dict)
    admits: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """A change of one field: two valid specs that differ only in this field.

    Attributes:
        admits: a merge patch that is valid after the change and refused before it; empty where there is none.
    """

    path: str
    before: Json
    after: Json
    admits: Json


class NoSample(Exception):
    """An error: neither the schema nor a sample gives a second value for a field."""


def changes(schema: Json, base: Json, items: Mapping[str, Json], samples: Mapping[str, Json]) -> list[Change]:
    """Return a change for every field of the spec.

    Args:
        schema: schema of the spec.
        base: a valid spec.
        items: default first item of empty lists, by the list's path with `[]` or the end of that path.
        samples: samples by path, or by `*` and the end of a path.

    Raises:
        NoSample: a field has neither a second value in the schema nor a sample.
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
        raise NoSample(
            f"{leaf.path}: the schema gives no second value; add a sample to tests/data/fields.yaml"
        )
    return Change(leaf.path, before, with_value(before, leaf.path, value), sample.admits)


def _named(known: Mapping[str, Json], path: str) -> Json:
    """Return the entry for a path, by the full path or by its end. The result is empty if there is none."""
    for key, each in known.items():
        if path.endswith(key[1:]) if key.startswith("*") else path == key:
            return each
    return {}


@dataclass(frozen=True)
class Field:
    """A leaf of the schema. `[]` in a path stands for the first item of a list."""

    path: str
    schema: Json

    def other_than(self, present: Any) -> Any:
        """Return a different valid value, or None if the schema alone gives none."""
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
    """Return every field of an object's schema that has no fields of its own."""
    if schema.get("type") == "object" and schema.get("properties"):
        for name, below in schema["properties"].items():
            yield from leaves(below, f"{path}.{name}" if path else name)
    elif schema.get("type") == "array" and schema["items"].get("properties"):
        yield from leaves(schema["items"], f"{path}[]")
    else:
        yield Field(path, schema)


def value_at(spec: Mapping[str, Any], path: str) -> Any:
    """Return the value of a field, or None if it is absent."""
    found: Any = spec
    for step in _steps(path):
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError):
            return None
    return found


def with_value(spec: Mapping[str, Any], path: str, value: Any) -> Json:
    """Return a copy of the spec in which the field has the value."""
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
