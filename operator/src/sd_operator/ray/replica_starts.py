# SPDX-License-Identifier: Apache-2.0
"""Reads the start reports of replicas from the runtime's answer to `GET /startz` (pure).

No field is relied upon, because an image of another release may answer differently.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sd_operator.strict_json import clipped

IMPORT = "import"
_VERSION = re.compile(r"[0-9]{1,4}([.][0-9]{1,6}){2}[-+.A-Za-z0-9]{0,32}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

_MOST_PHASES = 16
_MOST_NAME = 64
_MOST_LINES, _MOST_LINE = 32, 600
_END_OF_CENTURY = 4_102_444_800
_YEAR_SECONDS = 366 * 86400


@dataclass(frozen=True)
class StartReport:
    """The start of one replica so far.

    Attributes:
        began: when its process started.
        seconds: duration of each complete phase, by the runtime's name.
        phase: the running phase; empty once the replica can generate.
        since: start of the running phase; once the replica can generate, when it became able to.
        first_picture_seconds: duration of its first picture; None before it is complete.
        ray: version of Ray in the image; empty if the image does not report it.
        revision: commit of the loaded model; empty before it is loaded, or if the model has none.
        warnings: warnings of the libraries that load the model, a line each.
        refused_loras: why a LoRA of the spec cannot be used, by its name.
        batching: step or none, as the runtime reports it; empty before that, and for an image of another release.
    """

    began: datetime
    seconds: Mapping[str, float]
    phase: str
    since: datetime
    first_picture_seconds: float | None = None
    ray: str = ""
    revision: str = ""
    warnings: tuple[str, ...] = ()
    refused_loras: Mapping[str, str] = field(default_factory=dict)
    batching: Literal["step", "none", ""] = ""

    @property
    def is_complete(self) -> bool:
        """Whether the report is complete: the replica can generate, and its first picture is done."""
        return not self.phase and self.first_picture_seconds is not None


def read_starts(answer: Any) -> dict[str, StartReport]:
    """Start reports by Serve's id of the replica; unreadable reports are left out."""
    found = answer.get("starts") if isinstance(answer, dict) else None
    reports = ((name, _report(each)) for name, each in found.items()) if isinstance(found, dict) else ()
    return {name: report for name, report in reports if report is not None}


def _report(found: Any) -> StartReport | None:
    try:
        picture, seconds = found.get("first_picture_seconds"), found["seconds"]
        if not (isinstance(found["phase"], str) and len(seconds) <= _MOST_PHASES):
            return None
        return StartReport(
            began=_moment(found["began"]),
            seconds={clipped(name, _MOST_NAME): _seconds(each) for name, each in seconds.items()},
            phase=clipped(found["phase"], _MOST_NAME),
            since=_moment(found["since"]),
            first_picture_seconds=None if picture is None else max(0.0, _seconds(picture)),
            ray=_text(found.get("ray"), _VERSION),
            revision=_text(found.get("revision"), _COMMIT),
            warnings=tuple(_lines(found.get("warnings"))),
            refused_loras=_by_name(found.get("refused_loras")),
            batching=_batching(found.get("batching")),
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def _lines(found: Any) -> list[str]:
    """The lines of text in a list, bounded in number and length."""
    lines = found if isinstance(found, list) else []
    return [clipped(each, _MOST_LINE) for each in lines[:_MOST_LINES] if isinstance(each, str)]


def _by_name(found: Any) -> dict[str, str]:
    pairs = list(found.items())[:_MOST_LINES] if isinstance(found, dict) else []
    return {
        clipped(name, _MOST_NAME): clipped(each, _MOST_LINE) for name, each in pairs if isinstance(each, str)
    }


def _batching(found: Any) -> Literal["step", "none", ""]:
    return found if found in ("step", "none") else ""


def _moment(stamp: Any) -> datetime:
    """A time stamp as a datetime.

    Raises:
        ValueError: the time is before 1970 or after 2099.
        TypeError: the value is not a number.
    """
    if not 0 <= _number(stamp) < _END_OF_CENTURY:
        raise ValueError(stamp)
    return datetime.fromtimestamp(stamp, UTC)


def _seconds(value: Any) -> float:
    """A duration of at most a year; it is negative if a clock was set back.

    Raises:
        ValueError: the duration is longer.
        TypeError: the value is not a number.
    """
    found = float(_number(value))
    if not abs(found) <= _YEAR_SECONDS:
        raise ValueError(found)
    return found


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return value


def _text(found: Any, form: re.Pattern[str]) -> str:
    """A text of the given form; empty for anything else."""
    return found if isinstance(found, str) and form.fullmatch(found) else ""
