# SPDX-License-Identifier: Apache-2.0
"""The base of all models of the resource: strict, frozen, with rules for the API server and for Python.

The API server evaluates a rule as CEL from the generated CRD. `sdservice validate` and the operator run the same
rule in Python. `tests/cluster/test_admission.py` sends the same invalid examples through both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Rule:
    """A rule over several fields of one object.

    Attributes:
        cel: the rule for the API server. It is true for a valid object; `self` is the object.
        holds: the same rule for Python. Its argument is the validated model.
        message: the rule and what to change, in one sentence. The text is static, because a message computed from
            integers exceeds the API server's cost budget.
        field: path of the field that the error names, relative to the object (`.min`); empty for the object itself.
    """

    cel: str
    holds: Callable[[Any], bool]
    message: str
    field: str = ""


def _rules_into_schema(schema: dict[str, Any], model: type["Model"]) -> None:
    if model.rules:
        schema["x-kubernetes-validations"] = [
            {"rule": rule.cel, "message": rule.message} | ({"fieldPath": rule.field} if rule.field else {})
            for rule in model.rules
        ]


class Model(BaseModel):
    """A frozen part of the resource. Fields are camelCase in YAML and JSON; unknown fields are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        json_schema_extra=_rules_into_schema,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        broken = [(rule.field, rule.message) for rule in self.rules if not rule.holds(self)]
        if broken:
            raise PydanticCustomError("broken_rules", "rules are broken", {"broken": broken})
        return self
