# SPDX-License-Identifier: Apache-2.0
"""What can become of a request instead of being answered as the API server would."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sd_testkit.fault_proxy.request import ApiRequest
from sd_testkit.json_types import Json

_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def status(code: int, message: str) -> Json:
    """The body of an API server's refusal."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(code, "Unknown"),
        "code": code,
    }


@dataclass(frozen=True)
class Forward:
    """No fault: a rule that only counts."""


@dataclass(frozen=True)
class Reply:
    """Answer without asking the API server.

    Attributes:
        code: HTTP status.
        message: of the Status in the body.
        headers: such as Retry-After.
        body: what to send instead of a Status.
    """

    code: int
    message: str = "injected"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def content(self) -> bytes:
        """The body of the answer."""
        return json.dumps(status(self.code, self.message)).encode() if self.body is None else self.body


@dataclass(frozen=True)
class Delay:
    """Forward after a while."""

    seconds: float


@dataclass(frozen=True)
class Drop:
    """Reset the connection; `after` forwarding: it is done, and the reply is lost."""

    after: bool = False


@dataclass(frozen=True)
class Twice:
    """Forward it two times, as a proxy that repeats does; the second answer is the one that is given."""


@dataclass(frozen=True)
class Cut:
    """Give half of the answer's body, then reset the connection."""


@dataclass(frozen=True)
class Edit:
    """Forward, and change the body of a good answer."""

    change: Callable[[Json], Json]


@dataclass(frozen=True)
class Replay:
    """Give the answer that was given to the same request before, where there is one."""

    answers: Mapping[str, bytes]


@dataclass
class Hold:
    """Keep the client waiting, before or after forwarding, until released.

    Attributes:
        after: whether it was forwarded first, and only the reply is held.
        caught: set once a request is held.
        released: set to let it go on; a client that is killed meanwhile ends it too.
    """

    after: bool = False
    caught: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> None:
        """Hold this request."""
        self.caught.set()
        await self.released.wait()


@dataclass(frozen=True)
class Relay:
    """Forward, and give the answer on as it comes, headers, redirects and an end in the middle included."""


@dataclass(frozen=True)
class Lines:
    """Forward a watch, and change what it says: the function gives the events to send instead of one."""

    change: Callable[[Json], Iterable[Json]]


Fault = Forward | Reply | Delay | Drop | Twice | Cut | Edit | Replay | Hold | Lines | Relay
Ending = Literal["reset", "eof", "mid-line", "mid-line eof"]


def key(request: ApiRequest) -> str:
    """What makes two reads the same."""
    return f"{request.verb} {request.path}"
