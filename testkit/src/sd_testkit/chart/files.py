# SPDX-License-Identifier: Apache-2.0
"""Generates `values.yaml` and `values.schema.json` from the models (pure).

Helm reads JSON Schema 2020-12 with definitions, so the schema is that of pydantic, without the titles.
"""

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel

from sd_testkit.chart.values import Values

_WIDTH = 110
_HEAD = (
    "# SPDX-License-Identifier: Apache-2.0",
    "# Generated from sd_testkit.chart.values by `make generate`; edits are lost.",
)


def values_schema() -> str:
    """JSON Schema of the values. Helm validates against it on install, upgrade, lint and template."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_untitled(Values.model_json_schema(by_alias=True)),
    }
    return json.dumps(schema, indent=2) + "\n"


def values_yaml() -> str:
    """All values with their defaults. The description of each value stands above it as a comment."""
    return "\n".join((*_HEAD, *_lines(Values(), 0))) + "\n"


def _lines(part: BaseModel, depth: int) -> Iterator[str]:
    margin = "  " * depth
    for name, field in type(part).model_fields.items():
        value, key = getattr(part, name), field.alias or name
        if depth == 0:
            yield ""
        comment = " ".join((field.description or "").split())
        yield from textwrap.wrap(
            comment, _WIDTH, initial_indent=f"{margin}# ", subsequent_indent=f"{margin}# "
        )
        if isinstance(value, BaseModel):
            yield f"{margin}{key}:"
            yield from _lines(value, depth + 1)
        else:
            yield f"{margin}{key}: {_inline(value)}"


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def _untitled(node: Any) -> Any:
    """The schema without the titles that pydantic derives from names. A property named `title` stays."""
    if isinstance(node, list):
        return [_untitled(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _untitled(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
    }
