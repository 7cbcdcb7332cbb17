# SPDX-License-Identifier: Apache-2.0
"""Ray's messages, made readable: nested tracebacks with terminal colours become the one line that tells the reason (pure)."""

import re
from enum import StrEnum

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"(?:[A-Za-z_]\w*\.)*(?P<name>[A-Z]\w*): (?!Traceback|\s*$)")
_SHELL = re.compile(r"(?:[A-Za-z_]\w*\.)*RayTaskError\(\w+\): ")


_MOST = 32 * 1024  # of a message, the end: the last exception is what counts


class RuntimeProblem(StrEnum):
    """Errors of the runtime image that have a meaning here, by their class names (sd_runtime.errors).

    The name of the class is the interface: Ray hands a failed constructor over as a traceback. tests/contract holds
    both sides to it.
    """

    NOT_FOUND = "ModelNotFound"
    FORBIDDEN = "ModelForbidden"
    UNAVAILABLE = "ModelUnavailable"
    INVALID = "ModelInvalid"
    CONFIG = "ConfigError"


def reason(message: str) -> str:
    """The line that tells the reason: the last exception of nested tracebacks, else the last line."""
    text = _COLOUR.sub("", message[-_MOST:])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line) and not _SHELL.match(line)]
    return (raised or lines or ["Ray gives no reason"])[-1]


def runtime_problem(message: str) -> tuple[RuntimeProblem, str] | None:
    """The runtime's own error in a message and its words, None where it has none."""
    line = reason(message)
    match = _RAISED.match(line)
    if match is None or match["name"] not in list(RuntimeProblem):
        return None
    return RuntimeProblem(match["name"]), line[match.end() :]
