# SPDX-License-Identifier: Apache-2.0
"""The responses in the OpenAPI document: each error with an example, and images as files."""

from typing import Any

from sd_runtime.api.schemas import error_body

Responses = dict[int | str, dict[str, Any]]

_INVALID = "invalid_request_error"
_INVALID_STATUS = 400
_EXAMPLES = {
    400: (
        "The request breaks a rule; the message names the field, the value and the rule.",
        "n: got 99: must be from 1 to 4",
        _INVALID,
        "invalid_value",
    ),
    404: ("The job, the image or the model does not exist.", "no job has this id", _INVALID, "not_found"),
    406: (
        "The Accept header allows none of the available formats.",
        "Accept: got 'image/gif': must accept one of image/png",
        _INVALID,
        "not_acceptable",
    ),
    408: (
        "The body takes too long to arrive.",
        "the body was not complete within 120 s (limits.timeoutSeconds)",
        _INVALID,
        "request_timeout",
    ),
    409: (
        "The image of the job is not finished yet.",
        "the job is running; image 0 is not finished yet",
        _INVALID,
        "not_finished",
    ),
    413: ("The body is too large.", "the body is larger than 1048576 bytes", _INVALID, "body_too_large"),
    415: (
        "The body is not JSON.",
        "Content-Type: got 'text/plain': send JSON, with one header Content-Type: application/json",
        _INVALID,
        "unsupported_media_type",
    ),
    429: (
        "All request queues are full, or too many jobs are unfinished.",
        "all request queues are full; retry in 4 s",
        "rate_limit_error",
        "queue_full",
    ),
    500: (
        "The image could not be generated.",
        "the image contains NaN values",
        "server_error",
        "generation_failed",
    ),
    503: (
        "No replica can serve the request.",
        "the replica stopped before it finished; retry in 1 s",
        "server_error",
        "unavailable",
    ),
    504: (
        "The request did not finish within the time limit.",
        "the request did not finish within 120 s (limits.timeoutSeconds)",
        "server_error",
        "timeout",
    ),
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def errors(*statuses: int) -> Responses:
    """The error responses of a route, one for each status."""
    return {status: _error(status) for status in statuses}


def pictures(*formats: str) -> dict[str, Any]:
    """The content of a response that is an image file."""
    return {f"image/{name}": _BINARY for name in formats}


def _error(status: int) -> dict[str, Any]:
    description, message, kind, code = _EXAMPLES[status]
    example = error_body(message, kind=kind, code=code, param="n" if status == _INVALID_STATUS else None)
    example["error"]["request_id"] = "0f8fad5b-d9cb-469f-a165-70867728950e"
    answer = {"description": description, "content": {"application/json": {"example": example}}}
    if status in {429, 503}:
        text = "Seconds to wait before the client sends the request again."
        answer["headers"] = {"Retry-After": {"description": text, "schema": {"type": "integer"}}}
    return answer
