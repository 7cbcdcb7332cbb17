# SPDX-License-Identifier: Apache-2.0
"""What the OpenAPI document says of answers: errors with an example each, pictures as files."""

from typing import Any

from sd_runtime.api.schemas import error_body

Responses = dict[int | str, dict[str, Any]]

_INVALID = "invalid_request_error"
_INVALID_STATUS = 400
_EXAMPLES = {
    400: (
        "A rule is broken: field, value and rule.",
        "n: got 99: must be from 1 to 4",
        _INVALID,
        "invalid_value",
    ),
    404: ("There is no such job or picture.", "there is no job of this id", _INVALID, "not_found"),
    406: (
        "Accept takes nothing that there is.",
        "Accept: got 'image/gif': must take one of image/png",
        _INVALID,
        "not_acceptable",
    ),
    408: ("The body takes too long.", "the body did not end within 120 s", _INVALID, "request_timeout"),
    409: ("The job has no pictures yet.", "the job is running", _INVALID, "not_finished"),
    413: ("The body is too large.", "the body is larger than 1048576 bytes", _INVALID, "body_too_large"),
    415: (
        "The body is not JSON.",
        "Content-Type: got 'text/plain': send JSON, with the header Content-Type: application/json",
        _INVALID,
        "unsupported_media_type",
    ),
    429: ("Every queue is full.", "every queue is full; come back in 4 s", "rate_limit_error", "queue_full"),
    500: ("A picture could not be made.", "the picture is not a number", "server_error", "generation_failed"),
    503: (
        "No replica can draw.",
        "the replica was lost; send the request again",
        "server_error",
        "unavailable",
    ),
    504: ("Not done within the time limit.", "not done within 120 s", "server_error", "timeout"),
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def errors(*statuses: int) -> Responses:
    """The error answers a route can give."""
    return {status: _error(status) for status in statuses}


def pictures(*formats: str) -> dict[str, Any]:
    """Content of an answer that is a picture file."""
    return {f"image/{name}": _BINARY for name in formats}


def _error(status: int) -> dict[str, Any]:
    description, message, kind, code = _EXAMPLES[status]
    example = error_body(message, kind=kind, code=code, param="n" if status == _INVALID_STATUS else None)
    example["error"]["request_id"] = "0f8fad5b-d9cb-469f-a165-70867728950e"
    answer = {"description": description, "content": {"application/json": {"example": example}}}
    if status in {429, 503}:
        text = "Seconds until a new try makes sense."
        answer["headers"] = {"Retry-After": {"description": text, "schema": {"type": "integer"}}}
    return answer
