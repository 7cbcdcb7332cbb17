# SPDX-License-Identifier: Apache-2.0
"""Log records as JSON, one object per line. The object includes the attribute `fields` of a record."""

import json
import logging
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """A formatter that writes one JSON object per record: time, level, logger, message and fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as one line of JSON."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(entry | getattr(record, "fields", {}))


def of_request(request_id: str) -> dict[str, Any]:
    """The argument `extra` of a log call about one request."""
    return {"fields": {"request_id": request_id}}


def install() -> None:
    """Write the log records of this package to stderr as JSON.

    A second call changes nothing. Ray's own records keep their format.
    """
    ours = logging.getLogger("sd_runtime")
    if not any(isinstance(handler.formatter, JsonLines) for handler in ours.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False
