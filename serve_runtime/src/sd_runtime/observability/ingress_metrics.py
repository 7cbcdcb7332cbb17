# SPDX-License-Identifier: Apache-2.0
"""Metrics of the ingress, exported by Ray."""

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
    """A recorder of what happens to requests."""

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Record a finished response. `route` is the template of the route, never the path."""

    def cancelled(self) -> None:
        """Count a request whose client disconnected before its images were finished."""

    def looked_up(self, *, hit: bool) -> None:
        """Count a lookup of a seeded request in the result cache."""


class NoMetrics:
    """Metrics that record nothing."""

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Do nothing."""

    def cancelled(self) -> None:
        """Do nothing."""

    def looked_up(self, *, hit: bool) -> None:
        """Do nothing."""


class RayMetrics:
    """Metrics that Ray exports from this process."""

    def __init__(self) -> None:
        self._requests = Counter(
            "sd_http_requests", "HTTP requests by route and status.", tag_keys=("route", "status")
        )
        self._seconds = Histogram(
            "sd_http_request_seconds",
            "Seconds from the request to the last byte of the response.",
            boundaries=_SECONDS,
            tag_keys=("route",),
        )
        self._rejections = Counter("sd_http_rejections", "Rejected requests by reason.", tag_keys=("reason",))
        self._cancelled = Counter(
            "sd_http_cancelled", "Requests whose client disconnected before the response."
        )
        self._lookups = Counter(
            "sd_result_cache_lookups",
            "Lookups of seeded requests in the result cache, by result: hit or miss.",
            tag_keys=("result",),
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Record a finished response."""
        self._requests.inc(1, {"route": route, "status": str(status)})
        self._seconds.observe(seconds, {"route": route})
        if status in _REASONS:
            self._rejections.inc(1, {"reason": _REASONS[status]})

    def cancelled(self) -> None:
        """Count a request whose client disconnected."""
        self._cancelled.inc(1)

    def looked_up(self, *, hit: bool) -> None:
        """Count a lookup in the result cache."""
        self._lookups.inc(1, {"result": "hit" if hit else "miss"})
