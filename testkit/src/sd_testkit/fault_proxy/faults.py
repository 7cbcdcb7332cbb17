# SPDX-License-Identifier: Apache-2.0
"""The faults that the proxy can inject into a request."""

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
    """Return the Status body of a refusal by an API server."""
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
    """No fault. The rule only counts requests."""


@dataclass(frozen=True)
class Reply:
    """Answer without forwarding the request to the API server.

    Attributes:
        code: HTTP status.
        message: message of the Status in the body.
        headers: headers such as Retry-After.
        body: body to send in place of a Status.
    """

    code: int
    message: str = "injected"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def content(self) -> bytes:
        """Return the body of the response."""
        return json.dumps(status(self.code, self.message)).encode() if self.body is None else self.body


@dataclass(frozen=True)
class Delay:
    """Forward the request after a delay."""

    seconds: float


@dataclass(frozen=True)
class Drop:
    """Reset the connection. With `after`, the request is forwarded and executed first, and only the reply is lost."""

    after: bool = False


@dataclass(frozen=True)
class Twice:
    """Forward the request twice, as a proxy with retries does. The client receives the second response."""


@dataclass(frozen=True)
class Cut:
    """Send half of the response body, then reset the connection."""


@dataclass(frozen=True)
class Edit:
    """Forward the request, and change the body of a successful response."""

    change: Callable[[Json], Json]


@dataclass(frozen=True)
class Replay:
    """Send the response that the same request received before, if there is one."""

    answers: Mapping[str, bytes]


@dataclass
class Hold:
    """Block the request until `released` is set, before or after forwarding.

    Attributes:
        after: whether the request is forwarded first, so that only the reply is blocked.
        caught: set once a request is blocked.
        released: set to let the request continue. A client that is killed meanwhile ends the wait too.
    """

    after: bool = False
    caught: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> None:
        """Block this request until `released` is set."""
        self.caught.set()
        await self.released.wait()


@dataclass(frozen=True)
class Relay:
    """Forward the request, and stream the response unchanged: headers, redirects, and an end in the middle."""


@dataclass(frozen=True)
class Lines:
    """Forward a watch, and change its events. The function returns the events to send in place of one."""

    change: Callable[[Json], Iterable[Json]]


Fault = Forward | Reply | Delay | Drop | Twice | Cut | Edit | Replay | Hold | Lines | Relay
Ending = Literal["reset", "eof", "mid-line", "mid-line eof"]


def key(request: ApiRequest) -> str:
    """Return the key by which two reads count as the same."""
    return f"{request.verb} {request.path}"
