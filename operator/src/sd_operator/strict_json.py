# SPDX-License-Identifier: Apache-2.0
"""Strict reading of JSON from a tenant's pod: within bounds and of the expected shape, otherwise an error (pure).

A tenant's pod can send any answer. A refused answer counts as no answer, and only for this service.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from sd_operator.errors import RayUnavailable
from sd_operator.json_types import Json

MOST_VALUES = 100_000
MOST_DEPTH = 64
MOST_COUNT = 100_000
_LONGEST_MESSAGE = 300
_LARGEST = 2**63
_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}


def refuse(message: str) -> NoReturn:
    """Raise the error for an answer that cannot be used.

    Raises:
        RayUnavailable: always. Its message is one line of bounded length.
    """
    raise RayUnavailable(one_line(message))


def one_line(message: str, most: int = _LONGEST_MESSAGE) -> str:
    """Convert an untrusted text to one printable line of bounded length."""
    printable = "".join(each if each.isprintable() else " " for each in message[: 4 * most])
    line = " ".join(printable.split())
    return line if len(line) <= most else line[: most - 3] + "..."


def parse_object(body: bytes) -> Json:
    """The JSON object in the body of an answer.

    Raises:
        RayUnavailable: the body is not a JSON object, exceeds the bounds, or has a number that JSON does not allow.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        refuse("Ray's answer is not UTF-8")
    start = text.lstrip()[:1]
    if not start:
        refuse("Ray's answer is empty")
    if start == "<":
        refuse("Ray's answer is not JSON but HTML or XML")
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        refuse(f"Ray's answer has more than {MOST_VALUES} values")
    found = _parsed(text)
    if not isinstance(found, dict):
        refuse(f"Ray's answer is not a JSON object but {kind(found)}")
    for depth, value in _values(found):
        if depth > MOST_DEPTH:
            refuse(f"Ray's answer has more than {MOST_DEPTH} levels")
        if isinstance(value, int | float) and not abs(value) < _LARGEST:
            refuse("Ray's answer has a number that is too large")
    return found


def kind(value: Any) -> str:
    """The type of a JSON value, as a noun with its article."""
    return _KINDS.get(type(value), "a number")


def mapping(value: Any, where: str, most: int = MOST_VALUES) -> Mapping[str, Any]:
    """The object at a place in the answer. null counts as an empty object.

    Raises:
        RayUnavailable: the value is not an object, or has more than `most` entries.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        refuse(f"in Ray's answer {where} is {kind(value)}, not an object")
    if len(value) > most:
        refuse(f"in Ray's answer {where} has {len(value)} entries; the maximum is {most}")
    return value


def items(value: Any, where: str, most: int) -> list[Any]:
    """The list at a place in the answer. null counts as an empty list.

    Raises:
        RayUnavailable: the value is not a list, or has more than `most` entries.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        refuse(f"in Ray's answer {where} is {kind(value)}, not a list")
    if len(value) > most:
        refuse(f"in Ray's answer {where} has {len(value)} entries; the maximum is {most}")
    return value


def text(value: Any, where: str, most: int) -> str:
    """The string at a place in the answer. null counts as an empty string.

    Only the last `most` characters are kept, because a traceback ends with its reason.

    Raises:
        RayUnavailable: the value is not a string.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        refuse(f"in Ray's answer {where} is {kind(value)}, not a string")
    return clipped(value, most)


def clipped(value: str, most: int) -> str:
    """The end of a string. Halves of surrogate pairs are replaced, because they cannot be encoded as UTF-8."""
    return value[-most:].encode("utf-8", "replace").decode()


def object_or_empty(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, otherwise an empty object."""
    return value if isinstance(value, dict) else {}


def text_or_empty(value: Any, most: int) -> str:
    """The end of the value if it is a string, otherwise an empty string."""
    return clipped(value, most) if isinstance(value, str) else ""


def count(value: Any, where: str) -> int:
    """The count at a place in the answer. null counts as 0.

    Raises:
        RayUnavailable: the value is not a whole number, or is outside 0 to `MOST_COUNT`.
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(f"in Ray's answer {where} is {kind(value)}, not a count")
    if not 0 <= value <= MOST_COUNT:
        refuse(f"in Ray's answer {where} is not a count from 0 to {MOST_COUNT}")
    return value


def is_within(value: Any, values: int, characters: int) -> bool:
    """Whether a JSON value has at most this many values and characters, including keys."""
    for _, each in _values(value):
        values -= 1
        if isinstance(each, str):
            characters -= len(each)
        elif isinstance(each, dict):
            characters -= sum(map(len, each))
        if values < 0 or characters < 0:
            return False
    return True


def _parsed(text: str) -> Any:
    try:
        return json.loads(
            text, parse_constant=lambda name: refuse(f"Ray's answer has {name}, which is not JSON")
        )
    except RecursionError:
        refuse(f"Ray's answer has more than {MOST_DEPTH} levels")
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        refuse(f"Ray's answer is {'incomplete' if cut else 'not JSON'}: {error.msg}")
    except ValueError:  # the number has more digits than Python converts
        refuse("Ray's answer has a number that is too large")


def _values(root: Any) -> Iterator[tuple[int, Any]]:
    """The root and all values below it, each with its depth. The function is iterative, because recursion is limited."""
    waiting = [(1, root)]
    while waiting:
        depth, value = waiting.pop()
        yield depth, value
        if isinstance(value, dict):
            waiting += [(depth + 1, each) for each in value.values()]
        elif isinstance(value, list):
            waiting += [(depth + 1, each) for each in value]
