# SPDX-License-Identifier: Apache-2.0
"""Log records as one JSON object a line; what a record carries in `fields` is part of it."""

import json
import logging
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """One object per record: time, level, logger, message, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(told | getattr(record, "fields", {}))


def of_request(request_id: str) -> dict[str, Any]:
    """`extra` of a record about one request."""
    return {"fields": {"request_id": request_id}}


def install() -> None:
    """Send our own records to stderr like this, once per process; Ray's keep their form."""
    ours = logging.getLogger("sd_runtime")
    if not any(isinstance(handler.formatter, JsonLines) for handler in ours.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False
