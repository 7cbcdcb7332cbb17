# SPDX-License-Identifier: Apache-2.0
"""What the operator measures, for Prometheus; the only importer of its client."""

from prometheus_client import CollectorRegistry, Histogram, start_http_server

from sd_operator.cold_start import Start

_SECONDS = (0.5, 1, 2.5, 5, 10, 20, 40, 60, 90, 120, 180, 300, 450, 600, 900, 1800, 3600)
_FIRST_PICTURE = "first_picture"


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
