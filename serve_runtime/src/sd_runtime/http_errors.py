# SPDX-License-Identifier: Apache-2.0
"""Every error as JSON that names field, value and rule.

Ray Serve's proxy puts `x-request-id` on every answer, the client's own or a new one, and hands it on to us; what a
client sends is quoted in logs and messages only if it is short and plain.
"""

import json
import logging
import re
import traceback
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sd_runtime.errors import GenerationFailed, InvalidRequest
from sd_runtime.protocol import error_body

logger = logging.getLogger(__name__)

_INVALID = "invalid_request_error"
_UNQUOTED = {"prompt", "negative_prompt", ""}  # "" is the body as a whole, prompt included
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SHOWN = 80
_NOT_FOUND = 404


class Unavailable(HTTPException):
    """The request is fine and cannot be served now."""

    def __init__(self, status_code: int, message: str, retry_after: int | None = None) -> None:
        headers = None if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status_code, message, headers)


def install(api: FastAPI) -> None:
    """Give the application our errors."""
    api.add_exception_handler(InvalidRequest, _invalid)
    api.add_exception_handler(RequestValidationError, _malformed)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(GenerationFailed, _failed)
    api.add_exception_handler(Exception, _unexpected)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    param, code = getattr(error, "param", None), getattr(error, "code", None)
    # Its message only: where Ray carried the error here, str() adds a traceback.
    return JSONResponse(error_body(str(error.args[0]), kind=_INVALID, param=param, code=code), 400)


async def _malformed(_: Request, error: Exception) -> JSONResponse:
    details = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    field = ".".join(str(part) for part in details.get("loc", ())[1:] if isinstance(part, str))[:_SHOWN]
    code = "unknown_field" if details.get("type") == "extra_forbidden" else "invalid_value"
    return JSONResponse(
        error_body(_explain(details, field), kind=_INVALID, param=field or None, code=code), 400
    )


def _explain(details: dict[str, Any], field: str) -> str:
    kind = details.get("type")
    if kind == "extra_forbidden":
        return f"{field}: unknown field; check its spelling"
    if kind == "missing":
        return f"{field or 'body'}: required, and missing"
    if kind == "json_invalid":
        return f"body: is not JSON: {details['ctx']['error']}"
    value = details.get("input")
    shown = f"a {type(value).__name__}" if field in _UNQUOTED else _shown(value)
    return f"{field or 'body'}: got {shown}: {details.get('msg', 'is not valid')}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


async def _http(request: Request, error: Exception) -> JSONResponse:
    status, headers = getattr(error, "status_code", 500), getattr(error, "headers", None)
    message = str(getattr(error, "detail", error))
    if status == _NOT_FOUND:
        message = f"there is no {request.url.path}; see /docs"
    elif status == 405:  # noqa: PLR2004
        message = f"{request.method} is not possible on {request.url.path}"
    kind = {429: "rate_limit_error"}.get(status, _INVALID if status < 500 else "server_error")  # noqa: PLR2004
    return JSONResponse(error_body(message, kind=kind), status, headers)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    cause = getattr(error, "cause", error)
    logger.error("request %s: %s", _request_id(request), cause)
    return JSONResponse(error_body(str(cause), kind="server_error", code="generation_failed"), 500)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    # The frames without the message, which may hold a prompt.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("request %s: unexpected %s\n%s", _request_id(request), type(error).__name__, frames)
    message = f"an unexpected error; its traceback is in the logs under request {_request_id(request)}"
    return JSONResponse(error_body(message, kind="server_error"), 500)


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id", "")
    return given if _PLAIN_ID.fullmatch(given) else "unknown"
