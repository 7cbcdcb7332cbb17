# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from sd_operator.api.crd import custom_resource_definition

FORBIDDEN = {
    "$ref",
    "$defs",
    "title",
    "anyOf",
    "oneOf",
    "const",
    "propertyNames",
    "uniqueItems",
    "prefixItems",
}
YAML_1_1_BOOLEANS = {"y", "n", "yes", "no", "on", "off", "true", "false"}


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


@pytest.fixture(scope="module")
def version():
    return custom_resource_definition()["spec"]["versions"][0]


@pytest.fixture(scope="module")
def schema(version):
    return version["schema"]["openAPIV3Schema"]


def test_schema_is_structural(schema):
    for path, node in nodes(schema):
        assert not FORBIDDEN & set(node), path
        assert "type" in node or "x-kubernetes-int-or-string" in node, path
        assert node.get("default", "") is not None, path


def test_every_field_has_a_description(schema):
    undescribed = [
        path
        for path, node in nodes(schema)
        if path not in {"", ".metadata"} and not path.endswith(("[]", "{}")) and not node.get("description")
    ]
    assert undescribed == []


def test_every_value_is_bounded(schema):
    for path, node in nodes(schema["properties"]["spec"]):
        assert "x-kubernetes-preserve-unknown-fields" not in node, path
        if "enum" in node:
            continue
        kind = node.get("type")
        if kind == "string":
            assert "maxLength" in node, path
        elif kind == "array":
            assert "maxItems" in node, path
        elif kind in {"integer", "number"}:
            assert {"minimum", "maximum"} <= set(node), path
        elif kind == "object" and "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_no_enum_value_changes_when_unquoted_in_yaml(schema):
    for path, node in nodes(schema["properties"]["spec"]):
        for value in node.get("enum", []):
            assert yaml.safe_load(f"a: {value}") == {"a": value}, path
            assert value.lower() not in YAML_1_1_BOOLEANS, path


def test_columns_point_into_the_schema(schema, version):
    fields = {path for path, _ in nodes(schema)}
    for column in version["additionalPrinterColumns"]:
        path = column["jsonPath"].split("[?")[0]
        assert path in fields or path.startswith(".metadata."), column


def test_scale_paths_point_into_the_schema(schema, version):
    fields = {path for path, _ in nodes(schema)}
    assert set(version["subresources"]["scale"].values()) <= fields


def test_columns_are_those_a_user_reads(version):
    shown = [column["name"] for column in version["additionalPrinterColumns"] if "priority" not in column]
    assert shown == ["Ready", "Reason", "Model", "Replicas", "Preload", "URL", "Age"]
