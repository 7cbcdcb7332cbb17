# SPDX-License-Identifier: Apache-2.0
"""Conversion of every error to JSON that names field, value and rule. A response, a stream and a job use the same text.

Ray Serve's proxy puts `x-request-id` on every response, either the client's id or a new one, and passes it on to us.
Logs and messages quote a client's id only if it is short and plain.
"""

import json
import logging
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sd_runtime.api.schemas import error_body
from sd_runtime.errors import GenerationFailed, InvalidRequest
from sd_runtime.observability import json_logs

logger = logging.getLogger(__name__)

_INVALID = "invalid_request_error"
_SERVER = "server_error"
_UNQUOTED = {"prompt", "negative_prompt", ""}  # "" is the body as a whole, prompt included
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SHOWN = 80
_KINDS = {429: "rate_limit_error"}
_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "wrong_method",
    406: "not_acceptable",
    408: "request_timeout",
    409: "not_finished",
    413: "body_too_large",
    414: "target_too_long",
    415: "unsupported_media_type",
    429: "queue_full",
    431: "headers_too_large",
    501: "not_implemented",
    503: "unavailable",
    504: "timeout",
    505: "wrong_http_version",
}


class Unavailable(HTTPException):
    """The request cannot be served, for the reason that the HTTP status gives."""

    def __init__(
        self,
        status_code: int,
        message: str,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        after = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status_code, message, {**after, **(headers or {})} or None)


@dataclass(frozen=True)
class Problem:
    """An error response: status, body and headers."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def install(api: FastAPI) -> None:
    """Register the error handlers of an application."""
    for kind in (InvalidRequest, RequestValidationError, HTTPException, GenerationFailed, Exception):
        api.add_exception_handler(kind, _answer)


def plain_id(headers: Mapping[str, str]) -> str | None:
    """The request id that the client sent, or None if it is not short and plain enough to be quoted."""
    given = headers.get("x-request-id", "")
    return given if _PLAIN_ID.fullmatch(given) else None


def request_id(headers: Mapping[str, str]) -> str:
    """The id of a request, or `unknown` if it may not be quoted."""
    return plain_id(headers) or "unknown"


def problem(error: BaseException, request_id: str) -> Problem:
    """The response for an error, with the id of its request. A server error is logged as well."""
    found = _described(error, request_id)
    found.body["error"]["request_id"] = request_id
    return found


def _described(error: BaseException, request_id: str) -> Problem:
    if isinstance(error, InvalidRequest):
        # Only the message: str() of an error that Ray has passed on contains a traceback.
        body = error_body(str(error.args[0]), kind=_INVALID, param=error.param, code=error.code)
        return Problem(400, body)
    if isinstance(error, RequestValidationError):
        return _malformed(error.errors()[0])
    if isinstance(error, HTTPException):
        return _http(error)
    if isinstance(error, GenerationFailed):
        return _failed(error, request_id)
    return _unexpected(error, request_id)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        error = _routed(request, error)
    found = problem(error, request_id(request.headers))
    return JSONResponse(found.body, found.status, dict(found.headers))


def _routed(request: Request, error: HTTPException) -> HTTPException:
    """Give the router's own errors a clearer message. Our errors are `Unavailable` and stay as they are."""
    path = request.url.path[:_SHOWN]
    own = {
        404: f"the path {path} does not exist; /docs lists all paths",
        405: f"the method {request.method} is not allowed on {path}; the header Allow lists the methods",
    }
    if isinstance(error, Unavailable) or error.status_code not in own:
        return error
    return HTTPException(error.status_code, own[error.status_code], error.headers)


def _malformed(details: Mapping[str, Any]) -> Problem:
    # Only the strings after the first part: that one is query or body, and numbers are indexes in a list.
    name = ".".join(part for part in details.get("loc", ())[1:] if isinstance(part, str))[:_SHOWN]
    code = "unknown_field" if details.get("type") == "extra_forbidden" else "invalid_value"
    return Problem(400, error_body(_explain(details, name), kind=_INVALID, param=name or None, code=code))


def _explain(details: Mapping[str, Any], name: str) -> str:
    kind = details.get("type")
    if kind == "extra_forbidden":
        return f"{name}: unknown field; check its spelling"
    if kind == "missing":
        return f"{name or 'body'}: is required, but missing"
    if kind == "json_invalid":
        return f"body: is not JSON: {details['ctx']['error']}"
    value = details.get("input")
    shown = f"a {type(value).__name__}" if name in _UNQUOTED else _shown(value)
    return f"{name or 'body'}: got {shown}: {details.get('msg', 'is not valid')}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)  # the text is ASCII: halves of surrogate pairs stay escaped
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _http(error: HTTPException) -> Problem:
    status = error.status_code
    kind = _KINDS.get(status, _INVALID if status < 500 else _SERVER)  # noqa: PLR2004
    return Problem(
        status, error_body(str(error.detail), kind=kind, code=_CODES.get(status)), error.headers or {}
    )


def _failed(error: GenerationFailed, request_id: str) -> Problem:
    message = str(error.args[0]) if error.args else "the image could not be generated"
    logger.error("%s", message, extra=json_logs.of_request(request_id))
    return Problem(500, error_body(message, kind=_SERVER, code="generation_failed"))


def _unexpected(error: BaseException, request_id: str) -> Problem:
    # The frames are logged without the message, which may contain a prompt.
    frames = "".join(traceback.format_tb(error.__traceback__))
    extra = json_logs.of_request(request_id)
    logger.error("a request failed with an unexpected %s\n%s", type(error).__name__, frames, extra=extra)
    message = f"unexpected error in the service; the log has its traceback under request_id {request_id}"
    return Problem(500, error_body(message, kind=_SERVER, code="internal_error"))
