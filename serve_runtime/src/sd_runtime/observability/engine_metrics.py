# SPDX-License-Identifier: Apache-2.0
"""Metrics of the engine, exported by Ray. Ray Serve adds the labels application, deployment and replica."""

from ray.serve.metrics import Counter, Gauge, Histogram

from sd_runtime.observability.observer import Outcome, Phase

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
_BATCHES = [1, 2, 4, 8, 16, 32, 64]


class RayMetrics:
    """An `observer.Observer` that records Prometheus metrics through Ray."""

    def __init__(self) -> None:
        self._waiting = Gauge("sd_waiting_pictures", "Images that wait for their first denoising step.")
        self._running = Gauge("sd_running_pictures", "Images between their first and last denoising step.")
        self._batch = Histogram("sd_batch_pictures", "Images that share one UNet call.", _BATCHES)
        self._rows = Counter("sd_unet_rows", "Rows of UNet calls; an image with guidance uses two per step.")
        self._step = Histogram(
            "sd_step_seconds", "Seconds of one denoising step: a UNet call and its schedulers.", _SECONDS
        )
        self._phases = Histogram(
            "sd_phase_seconds", "Seconds of an image in a phase: queue, encode, denoise, decode, file.",
            _SECONDS, ("phase",),
        )  # fmt: skip
        self._outcomes = Counter(
            "sd_pictures", "Images by outcome: drawn, cancelled, failed, withheld.", ("outcome",)
        )
        self._texts = Counter(
            "sd_texts", "Prompt texts by source of their encoding: cached or encoded.", ("encoding",)
        )
        self._calls = Counter(
            "sd_network_calls",
            "Calls of UNet and decoder while compile is on, by code: compiled or eager.",
            ("code",),
        )
        self._compiled = Gauge(
            "sd_compiled_shapes", "Combinations of shapes and LoRAs that have compiled code."
        )
        self._memory = Gauge("sd_device_memory_bytes", "Device memory that tensors use, in bytes.")

    def load(self, waiting: int, running: int) -> None:
        """Record how many images wait and how many are running."""
        self._waiting.set(waiting)
        self._running.set(running)

    def step(self, pictures: int, rows: int, seconds: float) -> None:
        """Record one UNet call."""
        self._batch.observe(pictures)
        self._rows.inc(rows)
        self._step.observe(seconds)

    def phase(self, phase: Phase, seconds: float) -> None:
        """Record the seconds of an image in a phase."""
        self._phases.observe(seconds, {"phase": phase})

    def outcome(self, outcome: Outcome) -> None:
        """Count an image by its outcome."""
        self._outcomes.inc(1, {"outcome": outcome})

    def texts(self, cached: int, encoded: int) -> None:
        """Count texts by the source of their encoding."""
        for encoding, count in (("cached", cached), ("encoded", encoded)):
            if count:
                self._texts.inc(count, {"encoding": encoding})

    def memory(self, used: int) -> None:
        """Record the bytes of device memory in use."""
        self._memory.set(used)

    def network_call(self, compiled: bool, ready: int) -> None:
        """Count a call of a network by the code that ran, compiled or eager."""
        self._calls.inc(1, {"code": "compiled" if compiled else "eager"})
        self._compiled.set(ready)
