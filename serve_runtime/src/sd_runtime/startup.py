# SPDX-License-Identifier: Apache-2.0
"""The progress of a replica's start: its current phase, and the seconds of each finished phase."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Batching = Literal["step", "none"]
Phase = Literal["import", "weights", "pipeline", "compile", "warmup"]


@dataclass(frozen=True)
class StartReport:
    """A report of a replica's start so far.

    Attributes:
        began: when the start began, as Unix time in seconds.
        seconds: duration of each finished phase, in order: import, weights, pipeline, then compile or warmup if configured.
        phase: the current phase; empty once the replica is ready.
        since: when the current phase began, or when the replica became ready, as Unix time in seconds.
        first_picture_seconds: duration of the replica's first image; None until that image is finished.
        ray: version of Ray in this container image; empty outside Ray.
        revision: the loaded commit of the model's repository. It is empty before the weights are fetched, and for sources
            without commits.
        warnings: warnings of diffusers, transformers and peft while they loaded the model, one line each.
        refused_loras: the reason why each unusable LoRA of the configuration cannot be used, by its name.
        batching: step: images of many requests share each denoising step. none: one image at a time. Empty before the
            model is loaded.
    """

    began: float
    seconds: dict[str, float]
    phase: Phase | Literal[""]
    since: float
    first_picture_seconds: float | None = None
    ray: str = ""
    revision: str = ""
    warnings: tuple[str, ...] = ()
    refused_loras: dict[str, str] = field(default_factory=dict)
    batching: Batching | Literal[""] = ""


class Startup:
    """A recorder of a replica's start: it measures each phase and reports every change.

    Phases follow each other without a gap.

    Attributes:
        seconds: duration of each finished phase.
    """

    def __init__(
        self,
        publish: Callable[[StartReport], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        began: float | None = None,
        ray: str = "",
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._publish = publish
        self._clock = clock
        # The wall clock is read once, so that a change of the system time moves no phase.
        self._unix = (time.time() if began is None else began) - clock()
        self._began = self._since = clock()
        self._phase: Phase | Literal[""] = ""
        self._first_picture_seconds: float | None = None
        self._ray = ray
        self._revision = ""
        self._warnings: tuple[str, ...] = ()
        self._refused_loras: dict[str, str] = {}
        self._batching: Batching | Literal[""] = ""

    def enter(self, phase: Phase) -> None:
        """End the current phase and start this one."""
        self._go_on(phase)

    def fetched(self, revision: str) -> None:
        """Record that the weights are fetched. The next report has their revision.

        Args:
            revision: the commit of the weights; empty if their source has no commits.
        """
        self._revision = revision

    def loaded(
        self, warnings: Iterable[str], refused_loras: Mapping[str, str], *, batching: Batching
    ) -> None:
        """Record that the model is in memory. The next report has its warnings, unusable LoRAs and batching."""
        self._warnings, self._refused_loras = tuple(warnings), dict(refused_loras)
        self._batching = batching

    def done(self) -> None:
        """End the last phase: the replica is ready."""
        self._go_on("")

    def drew(self, seconds: float) -> None:
        """Record the duration of the first image, and report it."""
        self._first_picture_seconds = seconds
        self._publish(self.report())

    def report(self) -> StartReport:
        """The report of the start so far."""
        return StartReport(
            self._unix + self._began,
            dict(self.seconds),
            self._phase,
            self._unix + self._since,
            self._first_picture_seconds,
            self._ray,
            self._revision,
            self._warnings,
            self._refused_loras,
            self._batching,
        )

    def _go_on(self, phase: Phase | Literal[""]) -> None:
        now = self._clock()
        if self._phase:
            self.seconds[self._phase] = now - self._since
        self._phase, self._since = phase, now
        self._publish(self.report())
