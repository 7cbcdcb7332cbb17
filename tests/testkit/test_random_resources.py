# SPDX-License-Identifier: Apache-2.0
"""Random specs keep the bounds of their schema, unless they must break them."""

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sd_operator.api.crd import custom_resource_definition
from sd_testkit.generators.random_resources import broken, values

VERSION = custom_resource_definition()["spec"]["versions"][0]
SPEC = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]


def plain(schema):
    """As JSON Schema has it: exclusive bounds are numbers there, and integers may be quantities here."""
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: plain(value) for key, value in schema.items()}
    for bound in ("Minimum", "Maximum"):
        if found.pop(f"exclusive{bound}", None) is True:
            found[f"exclusive{bound}"] = found.pop(bound.lower())
    if found.pop("x-kubernetes-int-or-string", None):
        found = {"type": ["integer", "string"]}
    return found


VALIDATOR = jsonschema.Draft202012Validator(plain(SPEC))


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(values(SPEC))
def test_values_keep_their_bounds(value):
    VALIDATOR.validate(value)


def test_broken_ones_mostly_do_not():
    refused = []

    @settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(broken(SPEC))
    def draw(value):
        refused.append(not VALIDATOR.is_valid(value))

    draw()
    assert sum(refused) > len(refused) / 2


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer", "minimum": 7, "maximum": 9, "multipleOf": 8}, 8),
        ({"type": "string", "enum": ["a"]}, "a"),
        ({"type": "string", "pattern": "^b{2}$"}, "bb"),
        ({"type": "array", "items": {"enum": [1]}, "minItems": 2, "maxItems": 2}, [1, 1]),
        ({"type": "object", "required": ["a"], "properties": {"a": {"enum": [1]}}}, {"a": 1}),
    ],
)
def test_narrow_schemas_leave_one_value(schema, value):
    @settings(max_examples=10, deadline=None)
    @given(st.data())
    def draw(data):
        assert data.draw(values(schema)) == value

    draw()
