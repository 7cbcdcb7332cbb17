# SPDX-License-Identifier: Apache-2.0
"""Strict parsing of queries: each parameter once, percent-encoded UTF-8, and numbers in ASCII digits."""

import re
from collections import Counter
from functools import cache
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from pydantic import BaseModel

from sd_runtime.errors import InvalidRequest

_SHOWN = 80
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})[^&]{0,2}")
# Python also accepts 1_000, +1, surrounding blanks, and the digits of every script.
_LAX = re.compile(r"[^\x21-\x7e]|[+_]")
_NUMBERS = {"integer", "number"}


async def no_query(request: Request) -> None:
    """Reject any query on a route that has no parameters, so that a setting is never ignored silently."""
    strict_query(request)
    for name in request.query_params:
        raise InvalidRequest(
            f"{name[:_SHOWN]}: unknown query parameter; remove it", name[:_SHOWN], code="unknown_field"
        )


def strict_query(request: Request) -> None:
    """Reject a query that parsers read in different ways.

    Raises:
        InvalidRequest: a parameter appears twice, or is not percent-encoded UTF-8.
    """
    _check_escapes(request.scope["query_string"])
    counted = Counter(name for name, _ in request.query_params.multi_items())
    for name, times in counted.items():
        if times > 1:
            shown = name[:_SHOWN]
            raise InvalidRequest(f"{shown}: got {times} values: must appear once", shown)


def plain_number(text: Any, name: str = "number") -> Any:
    """Return the text of a number unchanged, or reject a notation that only some parsers accept.

    Raises:
        InvalidRequest: the text contains a blank, an underscore, a character beyond ASCII, or a plus sign outside an
            exponent.
    """
    if isinstance(text, str) and _LAX.search(text.replace("e+", "e").replace("E+", "e")):
        raise InvalidRequest(f"{name}: got {text[:_SHOWN]!a}: must be a number in ASCII digits", name)
    return text


def check_numbers(request: Request, model: type[BaseModel]) -> None:
    """Check each number of a query with `plain_number`. The fields of `model` determine which values are numbers."""
    for name in _numbers(model) & set(request.query_params):
        plain_number(request.query_params[name], name)


@cache
def _numbers(model: type[BaseModel]) -> frozenset[str]:
    """The names of the fields of a model that are integers or other numbers."""
    fields = model.model_json_schema()["properties"]
    return frozenset(name for name, schema in fields.items() if _kinds(schema) & _NUMBERS)


def _kinds(schema: dict[str, Any]) -> set[str]:
    return {each.get("type", "") for each in [schema, *schema.get("anyOf", [])]}


def _check_escapes(query: bytes) -> None:
    bad = _BAD_ESCAPE.search(query)
    if bad:
        shown = bad[0].decode("latin-1")
        raise InvalidRequest(
            f"query: got {shown!r}: two hexadecimal digits must follow each %; write %25 for a % itself"
        )
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("query: is not UTF-8: must be UTF-8, percent-encoded") from error
