# SPDX-License-Identifier: Apache-2.0
"""A journal of all requests to the API server, in order of arrival, with their outcome."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sd_testkit.fault_proxy.request import ApiRequest

_ELECTION = "leases"


@dataclass
class Entry:
    """One request.

    Attributes:
        at: monotonic seconds of the arrival.
        request: the request.
        status: HTTP status of the response; 0 while there is none, and if the connection was reset.
        forwarded: whether the API server received the request.
        fault: name of the fault that the request met; empty if there was none.
    """

    at: float
    request: ApiRequest
    status: int = 0
    forwarded: bool = False
    fault: str = ""

    @property
    def changed(self) -> bool:
        """Return whether the request is a write that the API server received and accepted. Leases do not count."""
        refused = self.status >= 400  # noqa: PLR2004 - HTTP
        return self.forwarded and self.request.is_write and not refused and not self.is_election

    @property
    def is_election(self) -> bool:
        """Return whether the request belongs to leader election."""
        return self.request.resource == _ELECTION


class Journal:
    """All requests of one proxy."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, request: ApiRequest) -> Entry:
        """Record an arrival."""
        entry = Entry(time.monotonic(), request)
        self.entries.append(entry)
        return entry

    def mark(self) -> int:
        """Return the number of requests so far, as a start for `since`."""
        return len(self.entries)

    def since(self, mark: int = 0) -> list[Entry]:
        """Return the requests that arrived after a mark."""
        return self.entries[mark:]

    def writes(self, mark: int = 0) -> list[Entry]:
        """Return the writes that the API server received and accepted. Leases do not count."""
        return [each for each in self.since(mark) if each.changed]

    def count(self, mark: int, wanted: Callable[[Entry], bool]) -> Counter[str]:
        """Return how often each request was made, with keys such as `create secrets/imagine-ray-token`."""
        return Counter(str(each.request) for each in self.since(mark) if wanted(each))
