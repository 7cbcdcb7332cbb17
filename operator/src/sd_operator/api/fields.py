# SPDX-License-Identifier: Apache-2.0
"""Field types that several parts of the resource share. Every type has a maximum length or value."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

JsonSchema = dict[str, Any]


@dataclass(frozen=True)
class Text:
    """A rule for a string with a readable message: CEL for the API server, a validator for Python.

    With a plain `pattern` in the schema, the error message would show only the regular expression. The pattern must
    have the same meaning in Python and in RE2 (no look-around, no back-references).

    Attributes:
        pattern: regular expression that the string must match. It is anchored only by `^` and `$` in the pattern.
        message: the rule as a sentence; also the error message.
        max_length: maximum number of characters.
    """

    pattern: str
    message: str
    max_length: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A string schema with the rule as a validator."""
        return core_schema.no_info_after_validator_function(
            self._check, core_schema.str_schema(min_length=1, max_length=self.max_length, strict=True)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """The string schema with the rule as CEL."""
        rule = {"rule": f"self.matches({_cel_string(self.pattern)})", "message": self.message}
        return {**handler(schema), "x-kubernetes-validations": [rule]}

    def _check(self, value: str) -> str:
        if re.search(self.pattern, value) is None:
            raise PydanticCustomError("pattern", "{message}", {"message": self.message})
        return value


@dataclass(frozen=True)
class KeyedList:
    """A list of objects with a unique key field. The API server merges the list by this key."""

    key: str
    max_length: int
    min_length: int = 0

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A tuple of bounded length with unique keys."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """The list as `x-kubernetes-list-type: map`."""
        bounds = {"maxItems": self.max_length} | ({"minItems": self.min_length} if self.min_length else {})
        keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}
        return {**handler(schema), **bounds, **keys}

    def _check(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.min_length <= len(items) <= self.max_length:
            bounds = {"least": self.min_length, "most": self.max_length}
            raise PydanticCustomError("length", "must have {least} to {most} items", bounds)
        seen = [getattr(each, self.key) for each in items]
        for value in seen:
            if seen.count(value) > 1:
                raise PydanticCustomError(
                    "duplicate", "Duplicate value: {key} {value}", {"key": self.key, "value": value}
                )
        return items


def _cel_string(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

ObjectName = Annotated[
    str,
    Text(
        r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        "must be the name of a Kubernetes object: lower-case letters, digits, '-' and '.'",
        max_length=253,
    ),
]
GroupName = Annotated[
    str, Text(_DNS_LABEL, "must be lower-case letters, digits and '-', at most 15 characters", max_length=15)
]
SecretKey = Annotated[
    str, Text(r"^[-._a-zA-Z0-9]+$", "must be a Secret key: letters, digits, '-', '_' and '.'", max_length=253)
]


@dataclass(frozen=True)
class Amount:
    """A Kubernetes quantity: a whole number, or a string of the given form."""

    pattern: str
    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A number or a string of the right form, not negative."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """Int-or-string, as for quantities in Kubernetes."""
        return {"x-kubernetes-int-or-string": True, "maxLength": 32, "pattern": self.pattern}

    def _check(self, value: str | int) -> str | int:
        if re.search(self.pattern, str(value)) is None:
            raise PydanticCustomError("quantity", "{message}", {"message": self.message})
        return value


Cpu = Annotated[
    str | int, Amount(r"^[0-9]+([.][0-9]+)?m?$", "must be a number of CPU cores such as 4, 0.5 or 500m")
]
Memory = Annotated[
    str | int,
    Amount(r"^[0-9]+([.][0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$", "must be an amount of memory such as 16Gi"),
]

LabelKey = Annotated[str, Field(min_length=1, max_length=316)]
LabelValue = Annotated[str, Field(max_length=63)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=32)]
Annotations = Annotated[
    dict[LabelKey, Annotated[str, Field(max_length=4096)]],
    Field(max_length=32),
]
