# SPDX-License-Identifier: Apache-2.0
"""Strict parsing of request bodies: JSON by RFC 8259 in UTF-8, each field once, and only finite numbers.

The error of a rejected body names the rule that it breaks.
"""

import json
import math
from collections.abc import Callable, Coroutine, Iterator
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from sd_runtime.api.errors import Unavailable
from sd_runtime.errors import InvalidRequest

_BOM = "\ufeff"
_DEEPEST = 16
_SHOWN = 80
_SEND_JSON = "send JSON, with one header Content-Type: application/json"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonRoute(APIRoute):
    """A route that parses its body strictly, if it has one."""

    def get_route_handler(self) -> Handler:
        """FastAPI's own handler, called after our parser."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def read_first(request: Request) -> Response:
            strict = _StrictRequest(request.scope, request.receive)
            await strict.read()
            return await handle(strict)

        return read_first


class _StrictRequest(Request):
    """A request whose parsed body FastAPI can read."""

    _parsed: Any = None

    async def read(self) -> None:
        """Read and parse the body once.

        Raises:
            InvalidRequest: the body is not valid JSON, or breaks one of our rules.
            Unavailable: the body has another type (415), or the client disconnected before its end (400).
        """
        try:
            content = await self.body()
        except ClientDisconnect as error:
            raise Unavailable(400, "the connection ended before the body was complete") from error
        if content:
            _check_type(self.headers)
            self._parsed = parse(content)

    async def json(self) -> Any:
        """The parsed body."""
        return self._parsed


def parse(content: bytes) -> Any:
    """Parse JSON text into Python values.

    Raises:
        InvalidRequest: the text is not JSON or not UTF-8, or it contains something that parsers read in different ways: a
            repeated field, NaN, half of a surrogate pair, deep nesting.
    """
    try:
        text = content.decode().removeprefix(_BOM)
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"body: is not UTF-8: byte {error.start} is invalid") from error
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"body: is not JSON: {error.msg}, at character {error.pos}") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # an integer of more than 4300 digits
        raise InvalidRequest("body: contains an integer with thousands of digits") from error
    _check_values(found)
    return found


def _check_type(headers: Headers) -> None:
    given = headers.getlist("content-type")
    if len(given) != 1:
        raise _other_type(f"Content-Type: got {len(given)} headers: {_SEND_JSON}")
    media = Message()
    media["content-type"] = given[0]
    kind, subtype = media.get_content_maintype(), media.get_content_subtype()
    if kind != "application" or not (subtype == "json" or subtype.endswith("+json")):
        raise _other_type(f"Content-Type: got {given[0][:_SHOWN]!r}: {_SEND_JSON}")
    charset = media.get_content_charset("utf-8")
    if charset not in {"utf-8", "utf8"}:
        raise _other_type(f"Content-Type: got charset {charset[:_SHOWN]!r}: must be utf-8, as JSON is UTF-8")
    coding = headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        message = f"Content-Encoding: got {coding[:_SHOWN]!r}: must be absent; send the body uncompressed"
        raise Unavailable(415, message, headers={"Accept-Encoding": "identity"})


def _other_type(message: str) -> Unavailable:
    return Unavailable(415, message, headers={"Accept": "application/json"})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = _printable(next(name for name in names if names.count(name) > 1))
        raise InvalidRequest(f"{twice}: got {names.count(twice)} values: must appear once", twice)
    return found


def _no_number(name: str) -> float:
    raise InvalidRequest(f"body: contains {name}, which is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidRequest(f"body: contains the number {text[:_SHOWN]}, which is too large for a float")
    return number


def _check_values(found: Any) -> None:
    for name, text, depth in _texts(found):
        if depth > _DEEPEST:
            raise _too_deep()
        if not _is_unicode(text):
            field = _printable(name)
            message = f"{field}: contains half of a surrogate pair: must be valid Unicode"
            raise InvalidRequest(message, field)


def _texts(found: Any) -> Iterator[tuple[str, str, int]]:
    """Every string in a value with its top-level field and its depth. Names of fields are included."""
    waiting = [("body", found, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, dict):
            yield from (("body", key, depth) for key in value)
            waiting += [(name if depth else key, each, depth + 1) for key, each in value.items()]
        elif isinstance(value, list):
            yield name, "", depth
            waiting += [(name, each, depth + 1) for each in value]
        elif isinstance(value, str):
            yield name, value, depth


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _printable(name: str) -> str:
    return name[:_SHOWN].encode("utf-8", "replace").decode()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"body: is nested deeper than {_DEEPEST} levels")
