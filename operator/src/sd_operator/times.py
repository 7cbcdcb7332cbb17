# SPDX-License-Identifier: Apache-2.0
"""Times as Kubernetes writes them: UTC, in seconds, such as `2026-01-02T03:04:05Z` (pure)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_SECONDS = "%Y-%m-%dT%H:%M:%S"


def stamp(moment: datetime) -> str:
    """A time in UTC as text."""
    return moment.strftime(f"{_SECONDS}Z")


def parsed(text: str) -> datetime:
    """The time of a text; fractions of a second are dropped.

    Raises:
        ValueError: it is no time.
    """
    return datetime.strptime(text[:19], _SECONDS).replace(tzinfo=UTC)


def of_event(event: Mapping[str, Any]) -> str:
    """When an Event was last seen; empty where nothing tells."""
    return event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp") or ""
