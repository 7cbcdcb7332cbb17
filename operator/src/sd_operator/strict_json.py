# SPDX-License-Identifier: Apache-2.0
"""JSON that a tenant's pod wrote, read strictly: within bounds, of the expected shape, or refused with the reason (pure).

A pod of a tenant may answer anything. Whatever is refused here counts as no answer, for that service alone.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from sd_operator.errors import RayUnavailable
from sd_operator.json_types import Json

MOST_VALUES = 100_000
MOST_DEPTH = 64
MOST_COUNT = 100_000
_MOST_WORDS = 300
_LARGEST = 2**63
_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}


def refuse(words: str) -> NoReturn:
    """Raise the error of an answer that cannot be used.

    Raises:
        RayUnavailable: always; in one line of bounded length.
    """
    raise RayUnavailable(one_line(words))


def one_line(words: str, most: int = _MOST_WORDS) -> str:
    """Text of a stranger as one printable line of bounded length."""
    printable = "".join(each if each.isprintable() else " " for each in words[: 4 * most])
    line = " ".join(printable.split())
    return line if len(line) <= most else line[: most - 3] + "..."


def parse_object(body: bytes) -> Json:
    """The JSON object in the body of an answer.

    Raises:
        RayUnavailable: it is something else, is not within the bounds, or holds a number that JSON does not know.
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
        refuse(f"Ray's answer holds more than {MOST_VALUES} values")
    found = _parsed(text)
    if not isinstance(found, dict):
        refuse(f"Ray's answer is not a JSON object but {kind(found)}")
    for depth, value in _values(found):
        if depth > MOST_DEPTH:
            refuse(f"Ray's answer is nested more than {MOST_DEPTH} deep")
        if isinstance(value, int | float) and not abs(value) < _LARGEST:
            refuse("Ray's answer holds a number that is too large")
    return found


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    return _KINDS.get(type(value), "a number")


def mapping(value: Any, where: str, most: int = MOST_VALUES) -> Mapping[str, Any]:
    """The object at a place in the answer; null is an empty one.

    Raises:
        RayUnavailable: it is something else, or has more entries than that.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        refuse(f"in Ray's answer {where} is {kind(value)}, not an object")
    if len(value) > most:
        refuse(f"in Ray's answer {where} has {len(value)} entries; {most} are read at most")
    return value


def items(value: Any, where: str, most: int) -> list[Any]:
    """The list at a place in the answer; null is an empty one.

    Raises:
        RayUnavailable: it is something else, or is longer than that.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        refuse(f"in Ray's answer {where} is {kind(value)}, not a list")
    if len(value) > most:
        refuse(f"in Ray's answer {where} has {len(value)} entries; {most} are read at most")
    return value


def text(value: Any, where: str, most: int) -> str:
    """The string at a place in the answer; null is an empty one. Of a longer one the end is kept, where tracebacks have their reason.

    Raises:
        RayUnavailable: it is something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        refuse(f"in Ray's answer {where} is {kind(value)}, not a string")
    return clipped(value, most)


def clipped(value: str, most: int) -> str:
    """The end of a string, without halves of surrogate pairs: nothing that is sent on may hold those."""
    return value[-most:].encode("utf-8", "replace").decode()


def object_or_empty(value: Any) -> Mapping[str, Any]:
    """The object that a value is; an empty one where it is anything else."""
    return value if isinstance(value, dict) else {}


def text_or_empty(value: Any, most: int) -> str:
    """The end of the string that a value is; an empty one where it is anything else."""
    return clipped(value, most) if isinstance(value, str) else ""


def count(value: Any, where: str) -> int:
    """The count at a place in the answer; null is 0.

    Raises:
        RayUnavailable: it is something else, or no count of anything that exists.
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(f"in Ray's answer {where} is {kind(value)}, not a count")
    if not 0 <= value <= MOST_COUNT:
        refuse(f"in Ray's answer {where} is not a count from 0 to {MOST_COUNT}")
    return value


def is_within(value: Any, values: int, characters: int) -> bool:
    """Whether a JSON value holds no more values and no more text than that, keys included."""
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
            text, parse_constant=lambda name: refuse(f"Ray's answer holds {name}, which is not JSON")
        )
    except RecursionError:
        refuse(f"Ray's answer is nested more than {MOST_DEPTH} deep")
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        refuse(f"Ray's answer is {'cut off' if cut else 'not JSON'}: {error.msg}")
    except ValueError:  # more digits than Python converts
        refuse("Ray's answer holds a number that is too large")


def _values(root: Any) -> Iterator[tuple[int, Any]]:
    """Each value below and including the root, with its depth; without recursion, whose depth has a bound."""
    waiting = [(1, root)]
    while waiting:
        depth, value = waiting.pop()
        yield depth, value
        if isinstance(value, dict):
            waiting += [(depth + 1, each) for each in value.values()]
        elif isinstance(value, list):
            waiting += [(depth + 1, each) for each in value]
