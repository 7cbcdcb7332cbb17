# SPDX-License-Identifier: Apache-2.0
"""Random values for a structural schema, such as a CRD's.

Some keep its bounds, and some break them.

CEL rules are not read, so the API server refuses many values that keep the bounds.
"""

from typing import Any

import hypothesis.strategies as st

from sd_testkit.json_types import Json

Schema = dict[str, Any]

_LONGEST = 40
_MOST_ITEMS = 4
_LARGEST = 2**31
_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=20),
    st.just([]),
    st.just({}),
    st.just({"a": [{"b": None}]}),
    st.just("x" * 5000),
)


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Return values that keep the bounds of a schema."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.one_of(st.integers(1, 64), _strings(schema))
    return _OF_TYPE[schema["type"]](schema)


def broken(schema: Schema) -> st.SearchStrategy[Any]:
    """Return values of an object's schema in which one property, at any depth, is arbitrary."""
    names = sorted(schema["properties"])

    def spoil(name: str) -> st.SearchStrategy[Json]:
        inner = schema["properties"][name]
        worse = broken(inner) if "properties" in inner else st.nothing()
        return st.fixed_dictionaries({name: st.one_of(_JUNK, worse)})

    return st.tuples(values(schema), st.sampled_from(names).flatmap(spoil)).map(
        lambda both: {**both[0], **both[1]}
    )


def _objects(schema: Schema) -> st.SearchStrategy[Any]:
    if "additionalProperties" in schema:
        keys = st.text("abc-./", min_size=1, max_size=8)
        return st.dictionaries(keys, values(schema["additionalProperties"]), max_size=3)
    properties = schema.get("properties", {})
    required = set(schema.get("required", []))
    given = {name: values(properties[name]) for name in sorted(required)}
    # Each property is omitted more often than not, so that rules between properties accept some values.
    spare = {name: values(inner) for name, inner in sorted(properties.items()) if name not in required}
    chosen = st.sets(st.sampled_from(sorted(spare)), max_size=3) if spare else st.just(set[str]())
    return chosen.flatmap(
        lambda names: st.fixed_dictionaries({**given, **{name: spare[name] for name in sorted(names)}})
    )


def _lists(schema: Schema) -> st.SearchStrategy[Any]:
    keys = schema.get("x-kubernetes-list-map-keys")
    return st.lists(
        values(schema["items"]),
        min_size=schema.get("minItems", 0),
        max_size=min(schema.get("maxItems", _MOST_ITEMS), _MOST_ITEMS),
        unique_by=(lambda item: tuple(item.get(key) for key in keys)) if keys else None,
    )


def _strings(schema: Schema) -> st.SearchStrategy[Any]:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).filter(
            lambda text: len(text) <= schema.get("maxLength", _LONGEST)
        )
    longest = min(schema.get("maxLength", _LONGEST), _LONGEST)
    words = st.text("abcxyz0189-", min_size=1, max_size=longest)
    any_text = st.text(min_size=schema.get("minLength", 0), max_size=longest)
    return st.one_of(words, words, any_text)


def _integers(schema: Schema) -> st.SearchStrategy[Any]:
    step = int(schema.get("multipleOf", 1))
    least, most = int(schema.get("minimum", 0)), int(schema.get("maximum", _LARGEST))
    first, last = -(-least // step), most // step
    return st.one_of(st.sampled_from([first, last]), st.integers(first, last)).map(
        lambda number: number * step
    )


def _numbers(schema: Schema) -> st.SearchStrategy[Any]:
    return st.floats(
        schema.get("minimum", 0.0),
        schema.get("maximum", 1e6),
        exclude_min=bool(schema.get("exclusiveMinimum")),
        exclude_max=bool(schema.get("exclusiveMaximum")),
        allow_nan=False,
    )


def _booleans(_: Schema) -> st.SearchStrategy[Any]:
    return st.booleans()


_OF_TYPE = {
    "object": _objects,
    "array": _lists,
    "string": _strings,
    "integer": _integers,
    "number": _numbers,
    "boolean": _booleans,
}
