# SPDX-License-Identifier: Apache-2.0
"""What the operator measures, for Prometheus; the only importer of its client."""

import time
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from sd_operator.errors import SdServiceError
from sd_operator.naming import Key
from sd_operator.observe.cold_start import Start

_SECONDS = (0.5, 1, 2.5, 5, 10, 20, 40, 60, 90, 120, 180, 300, 450, 600, 900, 1800, 3600)
_PASS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60)
_FIRST_PICTURE = "first_picture"
Work = Callable[[Key], Awaitable[float | None]]


class Metrics:
    """Counters of this process; they start at zero with it, as Prometheus expects."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._phases = Histogram(
            "sdservice_cold_start_phase_seconds",
            "Time of a worker's start by phase: node, image, ray, weights, pipeline, compile, warmup, first_picture.",
            ("phase",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._total = Histogram(
            "sdservice_cold_start_seconds",
            "Time from a worker's pod to a replica in it that can draw.",
            buckets=_SECONDS,
            registry=self.registry,
        )

        self._passes = Histogram(
            "sdservice_reconcile_seconds",
            "Time of a pass over one service.",
            buckets=_PASS_SECONDS,
            registry=self.registry,
        )
        self._failures = Counter(
            "sdservice_reconcile_failures",
            "Passes that failed and are tried again: unavailable (the API server) or unexpected (a defect).",
            ("cause",),
            registry=self.registry,
        )

        self._polls = Counter(
            "sdservice_polls",
            "Polls of pods of services: of the dashboard of a head or of a service itself, by what came of them: answered,"
            " refused (no answer that can be used) or late.",
            ("of", "outcome"),
            registry=self.registry,
        )

    def polled(self, of: str) -> Callable[[str], None]:
        """What is told of the outcome of each poll.

        Args:
            of: what is polled: `dashboard` or `service`.
        """
        return lambda outcome: self._polls.labels(of, outcome).inc()

    def timed(self, work: Work) -> Work:
        """The same work, measured."""

        async def measured(key: Key) -> float | None:
            began = time.monotonic()
            try:
                return await work(key)
            except Exception as error:
                cause = "unavailable" if isinstance(error, SdServiceError) else "unexpected"
                self._failures.labels(cause).inc()
                raise
            finally:
                self._passes.observe(time.monotonic() - began)

        return measured

    def watch(
        self, *, leads: Callable[[], bool], resync_age: Callable[[], float], waiting: Callable[[], int]
    ) -> None:
        """Tell these whenever they are asked for: whether we lead, seconds since the last LIST, keys that wait."""
        gauges = {
            ("sdservice_leader", "Whether this operator holds the Lease, or needs none."): leads,
            ("sdservice_resync_age_seconds", "Time since the last complete LIST."): resync_age,
            ("sdservice_queue_depth", "Services that wait for a pass."): waiting,
        }
        for (name, description), read in gauges.items():
            Gauge(name, description, registry=self.registry).set_function(read)

    def started(self, start: Start) -> None:
        """A start is over."""
        self._total.observe(start.total)
        for phase, seconds in start.seconds.items():
            self._phases.labels(phase.value).observe(seconds)

    def drew(self, seconds: float) -> None:
        """The first picture after a start was drawn."""
        self._phases.labels(_FIRST_PICTURE).observe(seconds)

    def serve(self, port: int) -> None:
        """Answer GET on this port, on a thread of its own, until the process ends."""
        start_http_server(port, registry=self.registry)
