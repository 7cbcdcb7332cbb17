# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of the operator. Only this module imports the Prometheus client."""

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
    """The metrics of this process. Counters start at zero with the process, as Prometheus expects."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._phases = Histogram(
            "sdservice_cold_start_phase_seconds",
            "Duration of each phase of a worker start: node, image, ray, weights, pipeline, compile, warmup, first_picture.",
            ("phase",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._total = Histogram(
            "sdservice_cold_start_seconds",
            "Time from the creation of a worker pod until its first replica is ready.",
            buckets=_SECONDS,
            registry=self.registry,
        )

        self._passes = Histogram(
            "sdservice_reconcile_seconds",
            "Duration of one reconcile of a service.",
            buckets=_PASS_SECONDS,
            registry=self.registry,
        )
        self._failures = Counter(
            "sdservice_reconcile_failures",
            "Failed reconciles, which are retried, by cause: unavailable (the API server) or unexpected (a bug).",
            ("cause",),
            registry=self.registry,
        )

        self._polls = Counter(
            "sdservice_polls",
            "Polls by target (dashboard: the Ray dashboard of a head; service: the service itself) and outcome: answered,"
            " refused (no usable answer) or late (timeout).",
            ("of", "outcome"),
            registry=self.registry,
        )

    def polled(self, of: str) -> Callable[[str], None]:
        """A function that counts the outcome of each poll.

        Args:
            of: the target of the poll: `dashboard` or `service`.
        """
        return lambda outcome: self._polls.labels(of, outcome).inc()

    def timed(self, work: Work) -> Work:
        """Wrap a reconcile function, to measure its duration and count its failures."""

        async def measured(key: Key) -> float | None:
            started = time.monotonic()
            try:
                return await work(key)
            except Exception as error:
                cause = "unavailable" if isinstance(error, SdServiceError) else "unexpected"
                self._failures.labels(cause).inc()
                raise
            finally:
                self._passes.observe(time.monotonic() - started)

        return measured

    def watch(
        self, *, leads: Callable[[], bool], resync_age: Callable[[], float], waiting: Callable[[], int]
    ) -> None:
        """Register gauges that are read at each scrape: leadership, seconds since the last resync, length of the queue."""
        gauges = {
            ("sdservice_leader", "1 if this operator holds the Lease or needs none, otherwise 0."): leads,
            ("sdservice_resync_age_seconds", "Time since the last complete resync (LIST)."): resync_age,
            ("sdservice_queue_depth", "Number of services that wait for a reconcile."): waiting,
        }
        for (name, description), read in gauges.items():
            Gauge(name, description, registry=self.registry).set_function(read)

    def started(self, start: Start) -> None:
        """Record a completed start of a worker."""
        self._total.observe(start.total)
        for phase, seconds in start.seconds.items():
            self._phases.labels(phase.value).observe(seconds)

    def drew(self, seconds: float) -> None:
        """Record the duration of the first picture after a start."""
        self._phases.labels(_FIRST_PICTURE).observe(seconds)

    def serve(self, port: int) -> None:
        """Serve the metrics on this port, in a separate thread, until the process ends."""
        start_http_server(port, registry=self.registry)
