# SPDX-License-Identifier: Apache-2.0
"""Rules that choose the requests for a fault."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sd_testkit.fault_proxy.faults import Fault
from sd_testkit.fault_proxy.request import WRITES, ApiRequest


@dataclass(frozen=True)
class Match:
    """A filter for requests.

    An attribute that is not set matches all requests.

    Attributes:
        verbs: a set such as {"watch"}.
        resources: plurals of kinds.
        subresource: a name; empty: the object itself; None: any.
        where: an additional condition.
    """

    verbs: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    subresource: str | None = None
    namespace: str = ""
    name: str = ""
    where: Callable[[ApiRequest], bool] = lambda _: True

    @classmethod
    def of(
        cls,
        verbs: str = "",
        resources: str = "",
        *,
        subresource: str | None = None,
        name: str = "",
        where: Callable[[ApiRequest], bool] = lambda _: True,
    ) -> "Match":
        """Build a filter from words, such as `Match.of("get list", "rayservices")`.

        `write` stands for all write verbs.
        """
        chosen = frozenset(verbs.split())
        if "write" in chosen:
            chosen = chosen - {"write"} | WRITES
        return cls(chosen, frozenset(resources.split()), subresource, "", name, where)

    def __call__(self, request: ApiRequest) -> bool:
        """Return whether the filter matches a request."""
        return (
            request.verb in (self.verbs or {request.verb})
            and request.resource in (self.resources or {request.resource})
            and self.subresource in {None, request.subresource}
            and self.namespace in {"", request.namespace}
            and self.name in {"", request.name}
            and self.where(request)
        )


@dataclass
class Rule:
    """A fault for some requests.

    Attributes:
        match: the requests to consider.
        fault: the fault that they meet.
        first: number of the first matching request that meets the fault, counted from 1.
        times: number of requests that meet the fault; None: all of them.
        seen: number of matching requests so far.
        hits: number of requests that met the fault.
    """

    match: Match
    fault: Fault
    first: int = 1
    times: int | None = None
    seen: int = field(default=0, init=False)
    hits: int = field(default=0, init=False)

    def takes(self, request: ApiRequest) -> bool:
        """Return whether this request meets the fault, and count the request."""
        if not self.match(request):
            return False
        self.seen += 1
        due = self.seen >= self.first and (self.times is None or self.hits < self.times)
        self.hits += due
        return due
