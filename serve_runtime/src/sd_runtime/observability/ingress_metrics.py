# SPDX-License-Identifier: Apache-2.0
"""What the ingress counts, through Ray's metrics export."""

from typing import Protocol

from ray.util.metrics import Counter, Histogram

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 600]
_REASONS = {
    400: "invalid",
    404: "not_found",
    405: "wrong_method",
    406: "not_acceptable",
    408: "slow_body",
    413: "too_large",
    415: "not_json",
    429: "queue_full",
    503: "unavailable",
    504: "timeout",
}


class IngressMetrics(Protocol):
    """What happened to requests."""

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request got its last byte; `route` is the template, never the path."""

    def cancelled(self) -> None:
        """A client left before its pictures were done."""

    def looked_up(self, *, hit: bool) -> None:
        """A seeded request was looked for in the result cache."""


class NoMetrics:
    """Counts nothing."""

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Not counted."""

    def cancelled(self) -> None:
        """Not counted."""

    def looked_up(self, *, hit: bool) -> None:
        """Not counted."""


class RayMetrics:
    """Counts through the Ray process this runs in."""

    def __init__(self) -> None:
        self._requests = Counter(
            "sd_http_requests", "HTTP requests by route and status.", tag_keys=("route", "status")
        )
        self._seconds = Histogram(
            "sd_http_request_seconds", "Seconds to the last byte.", boundaries=_SECONDS, tag_keys=("route",)
        )
        self._rejections = Counter("sd_http_rejections", "Refused requests by reason.", tag_keys=("reason",))
        self._cancelled = Counter("sd_http_cancelled", "Requests whose client left before the end.")
        self._lookups = Counter(
            "sd_result_cache_lookups", "Seeded requests looked up by result.", tag_keys=("result",)
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request got its last byte."""
        self._requests.inc(1, {"route": route, "status": str(status)})
        self._seconds.observe(seconds, {"route": route})
        if status in _REASONS:
            self._rejections.inc(1, {"reason": _REASONS[status]})

    def cancelled(self) -> None:
        """A client left."""
        self._cancelled.inc(1)

    def looked_up(self, *, hit: bool) -> None:
        """A seeded request was looked up."""
        self._lookups.inc(1, {"result": "hit" if hit else "miss"})
