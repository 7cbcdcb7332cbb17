# SPDX-License-Identifier: Apache-2.0
"""The CustomResourceDefinition, with pydantic's JSON Schema rewritten into a structural schema (pure).

A structural schema has no `$ref`, no typed `anyOf` and no `null`, and its exclusive bounds are booleans:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from typing import Any

from sd_operator.api.base import Model
from sd_operator.api.resource import API_VERSION, GROUP, KIND, NAME_RULES, PLURAL, VERSION
from sd_operator.api.spec import Spec
from sd_operator.api.status import Status

Schema = dict[str, Any]

_COLUMNS = (
    ("Ready", ".status.conditions[?(@.type=='Ready')].status", 0),
    ("Reason", ".status.conditions[?(@.type=='Ready')].reason", 0),
    ("Model", ".status.model.uri", 0),
    ("Replicas", ".status.replicas.summary", 0),
    ("Preload", ".status.preload.summary", 0),
    ("URL", ".status.url", 0),
    ("RayService", ".status.rayService", 1),
    ("Image", ".status.image", 1),
    ("ColdStartSeconds", ".status.coldStart.totalSeconds", 1),
)
_DROPPED = {"title", "additionalProperties", "propertyNames", "anyOf", "$defs"}


def custom_resource_definition() -> Schema:
    """The CRD as a plain dict, ready for YAML."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["sdservice", "sds"],
                "categories": ["ray"],
            },
            "versions": [_version()],
        },
    }


def _version() -> Schema:
    columns: list[Schema] = [
        {"name": name, "type": "string", "jsonPath": path} | ({"priority": priority} if priority else {})
        for name, path, priority in _COLUMNS
    ]
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas.min",
                "statusReplicasPath": ".status.replicas.ready",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            *columns[:6],
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            *columns[6:],
        ],
        "schema": {"openAPIV3Schema": _root()},
    }


def _root() -> Schema:
    return {
        "type": "object",
        "description": "An image-generation service. Its replicas run on the GPU workers of a RayService.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {API_VERSION}."},
            "kind": {"type": "string", "description": f"Always {KIND}."},
            "metadata": {"type": "object"},
            "spec": structural(Spec),
            "status": structural(Status),
        },
        "x-kubernetes-validations": [{"rule": rule, "message": text} for rule, text in NAME_RULES.items()],
    }


def structural(model: type[Model]) -> Schema:
    """The structural schema of one model, with references inlined."""
    schema = model.model_json_schema(by_alias=True)
    return _rewrite(schema, schema.get("$defs", {}))


def _rewrite(node: Schema, defs: dict[str, Schema]) -> Schema:
    node = _collapse_optional(_inline(node, defs), defs)
    result: Schema = {}
    for key, value in node.items():
        if key == "properties":
            result[key] = {name: _rewrite(child, defs) for name, child in value.items()}
        elif key == "items" or (key == "additionalProperties" and isinstance(value, dict) and value):
            result[key] = _rewrite(value, defs)
        elif key == "default":
            result[key] = _without_nulls(value)
        elif key not in _DROPPED:
            result[key] = value
    return _bounds(_const(_int_or_string(result)))


def _inline(node: Schema, defs: dict[str, Schema]) -> Schema:
    """Replace a `$ref` by the referenced model. Keys of the field itself (description, default) take precedence."""
    if "$ref" not in node:
        return node
    own = {key: value for key, value in node.items() if key != "$ref"}
    target = _inline(defs[node["$ref"].rsplit("/", 1)[1]], defs)
    return target | own


def _collapse_optional(node: Schema, defs: dict[str, Schema]) -> Schema:
    """Turn `X or null, default null` into an optional field of type X."""
    variants = [variant for variant in node.get("anyOf", []) if variant.get("type") != "null"]
    if len(variants) == len(node.get("anyOf", [])):
        return node
    own = {key: value for key, value in node.items() if key != "anyOf"}
    if own.get("default", "") is None:
        del own["default"]
    inner = variants[0] if len(variants) == 1 else {"anyOf": variants}
    return _inline(inner, defs) | own


def _int_or_string(node: Schema) -> Schema:
    if node.get("x-kubernetes-int-or-string"):
        node.pop("type", None)
    return node


def _const(node: Schema) -> Schema:
    if "const" in node:
        node["enum"] = [node.pop("const")]
    return node


def _bounds(node: Schema) -> Schema:
    for side in ("Minimum", "Maximum"):
        exclusive = f"exclusive{side}"
        if isinstance(node.get(exclusive), int | float):
            node[side.lower()] = node[exclusive]
            node[exclusive] = True
    return node


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(child) for key, child in value.items() if child is not None}
    if isinstance(value, list):
        return [_without_nulls(child) for child in value]
    return value
