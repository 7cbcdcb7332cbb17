# SPDX-License-Identifier: Apache-2.0
"""Which requests a fault is for."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sd_testkit.fault_proxy.faults import Fault
from sd_testkit.fault_proxy.request import WRITES, ApiRequest


@dataclass(frozen=True)
class Match:
    """Requests by what they ask; what is left out matches all.

    Attributes:
        verbs: such as {"watch"}.
        resources: plurals.
        subresource: empty: the object itself; None: whatever.
        where: a further condition.
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
        """From words: `Match.of("get list", "rayservices")`; `write` stands for all writes."""
        chosen = frozenset(verbs.split())
        if "write" in chosen:
            chosen = chosen - {"write"} | WRITES
        return cls(chosen, frozenset(resources.split()), subresource, "", name, where)

    def __call__(self, request: ApiRequest) -> bool:
        """Tell whether a request is one of them."""
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
        match: which.
        fault: what becomes of them.
        first: from which of them on, counted from 1.
        times: of how many; None: of all.
        seen: how many there were.
        hits: how many met the fault.
    """

    match: Match
    fault: Fault
    first: int = 1
    times: int | None = None
    seen: int = field(default=0, init=False)
    hits: int = field(default=0, init=False)

    def takes(self, request: ApiRequest) -> bool:
        """Tell whether this request meets the fault; each is counted."""
        if not self.match(request):
            return False
        self.seen += 1
        due = self.seen >= self.first and (self.times is None or self.hits < self.times)
        self.hits += due
        return due
