# SPDX-License-Identifier: Apache-2.0
"""Extracts the one line with the reason from Ray's messages: nested tracebacks with terminal colours (pure)."""

import re
from enum import StrEnum

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"(?:[A-Za-z_]\w*\.)*(?P<name>[A-Z]\w*): (?!Traceback|\s*$)")
_SHELL = re.compile(r"(?:[A-Za-z_]\w*\.)*RayTaskError\(\w+\): ")


_MOST = 32 * 1024  # bound for the end of a message, where the last exception is


class RuntimeProblem(StrEnum):
    """Errors of the runtime image that the operator recognizes, by their class names (sd_runtime.errors).

    The class name is the interface, because Ray reports a failed constructor as a traceback. tests/contract checks both
    sides.
    """

    NOT_FOUND = "ModelNotFound"
    FORBIDDEN = "ModelForbidden"
    UNAVAILABLE = "ModelUnavailable"
    INVALID = "ModelInvalid"
    CONFIG = "ConfigError"


def reason(message: str) -> str:
    """The line with the reason: the last exception of nested tracebacks, else the last line."""
    text = _COLOUR.sub("", message[-_MOST:])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line) and not _SHELL.match(line)]
    return (raised or lines or ["Ray gives no reason"])[-1]


def runtime_problem(message: str) -> tuple[RuntimeProblem, str] | None:
    """The runtime's own error in a message, with its text; None if the message has none."""
    line = reason(message)
    match = _RAISED.match(line)
    if match is None or match["name"] not in list(RuntimeProblem):
        return None
    return RuntimeProblem(match["name"]), line[match.end() :]
