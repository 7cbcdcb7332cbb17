# SPDX-License-Identifier: Apache-2.0
"""Converts times in the format of Kubernetes: UTC, in seconds, such as `2026-01-02T03:04:05Z` (pure)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_SECONDS = "%Y-%m-%dT%H:%M:%S"


def stamp(moment: datetime) -> str:
    """Format a time in UTC."""
    return moment.strftime(f"{_SECONDS}Z")


def parsed(text: str) -> datetime:
    """Parse a time. Fractions of a second are dropped.

    Raises:
        ValueError: the text is not a time.
    """
    return datetime.strptime(text[:19], _SECONDS).replace(tzinfo=UTC)


def of_event(event: Mapping[str, Any]) -> str:
    """The time when an Event last occurred; empty if the Event has no time."""
    return event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp") or ""
