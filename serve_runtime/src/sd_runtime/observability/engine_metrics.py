# SPDX-License-Identifier: Apache-2.0
"""What the engine measures, on Ray's metrics export; Serve adds application, deployment and replica."""

from ray.serve.metrics import Counter, Gauge, Histogram

from sd_runtime.observability.observer import Outcome, Phase

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
_BATCHES = [1, 2, 4, 8, 16, 32, 64]


class RayMetrics:
    """An `observer.Observer` that counts for Prometheus."""

    def __init__(self) -> None:
        self._waiting = Gauge("sd_waiting_pictures", "Pictures that wait for their first step.")
        self._running = Gauge("sd_running_pictures", "Pictures between their first step and their last.")
        self._batch = Histogram("sd_batch_pictures", "Pictures that share a UNet call.", _BATCHES)
        self._rows = Counter("sd_unet_rows", "Rows of UNet calls; a guided picture takes two a step.")
        self._step = Histogram(
            "sd_step_seconds", "Time of one step: a UNet call with its schedulers.", _SECONDS
        )
        self._phases = Histogram(
            "sd_phase_seconds", "Time of a picture in a phase: queue, encode, denoise, decode, file.",
            _SECONDS, ("phase",),
        )  # fmt: skip
        self._outcomes = Counter(
            "sd_pictures", "Pictures by outcome: drawn, cancelled, failed, withheld.", ("outcome",)
        )
        self._texts = Counter("sd_texts", "Texts by encoding: cached or encoded.", ("encoding",))
        self._calls = Counter(
            "sd_network_calls",
            "Calls of UNet and decoder where compile is on, by code: compiled or eager.",
            ("code",),
        )
        self._compiled = Gauge("sd_compiled_shapes", "Combinations of shapes and LoRAs that run compiled.")
        self._memory = Gauge("sd_device_memory_bytes", "Device memory in use by tensors.")

    def load(self, waiting: int, running: int) -> None:
        """Pictures that wait and pictures that are being drawn."""
        self._waiting.set(waiting)
        self._running.set(running)

    def step(self, pictures: int, rows: int, seconds: float) -> None:
        """One UNet call."""
        self._batch.observe(pictures)
        self._rows.inc(rows)
        self._step.observe(seconds)

    def phase(self, phase: Phase, seconds: float) -> None:
        """A picture went through a phase."""
        self._phases.observe(seconds, {"phase": phase})

    def outcome(self, outcome: Outcome) -> None:
        """What became of a picture."""
        self._outcomes.inc(1, {"outcome": outcome})

    def texts(self, cached: int, encoded: int) -> None:
        """Texts by where their encoding came from."""
        for encoding, count in (("cached", cached), ("encoded", encoded)):
            if count:
                self._texts.inc(count, {"encoding": encoding})

    def memory(self, used: int) -> None:
        """Bytes of device memory in use."""
        self._memory.set(used)

    def network_call(self, compiled: bool, ready: int) -> None:
        """A call of a network by the code that it ran."""
        self._calls.inc(1, {"code": "compiled" if compiled else "eager"})
        self._compiled.set(ready)
