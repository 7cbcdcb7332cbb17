# SPDX-License-Identifier: Apache-2.0
"""What was asked of the API server, in the order of arrival, and what became of it."""

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
        at: monotonic seconds of its arrival.
        request: what was asked.
        status: HTTP status of the answer; 0 while there is none, and where the connection was reset.
        forwarded: whether the API server got it.
        fault: name of the fault it met, empty where it met none.
    """

    at: float
    request: ApiRequest
    status: int = 0
    forwarded: bool = False
    fault: str = ""

    @property
    def changed(self) -> bool:
        """Whether it is a write that the API server got, Leases apart, and did not refuse."""
        refused = self.status >= 400  # noqa: PLR2004 - HTTP
        return self.forwarded and self.request.is_write and not refused and not self.is_election

    @property
    def is_election(self) -> bool:
        """Whether it is about who leads."""
        return self.request.resource == _ELECTION


class Journal:
    """Every request of one proxy."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, request: ApiRequest) -> Entry:
        """Note an arrival."""
        entry = Entry(time.monotonic(), request)
        self.entries.append(entry)
        return entry

    def mark(self) -> int:
        """How many there are, to look only at later ones."""
        return len(self.entries)

    def since(self, mark: int = 0) -> list[Entry]:
        """Those that arrived after a mark."""
        return self.entries[mark:]

    def writes(self, mark: int = 0) -> list[Entry]:
        """Writes that the API server got and did not refuse, Leases apart."""
        return [each for each in self.since(mark) if each.changed]

    def count(self, mark: int, wanted: Callable[[Entry], bool]) -> Counter[str]:
        """How often each request was made, as `create secrets/imagine-ray-token`."""
        return Counter(str(each.request) for each in self.since(mark) if wanted(each))
