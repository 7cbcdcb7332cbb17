# SPDX-License-Identifier: Apache-2.0
"""How far the start of a replica is, and how long each phase of it took."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Batching = Literal["step", "none"]
Phase = Literal["import", "weights", "pipeline", "compile", "warmup"]


@dataclass(frozen=True)
class StartReport:
    """A start, so far.

    Attributes:
        began: when it began, Unix time in seconds; likewise `since`.
        seconds: of each phase that is over, in order: import, weights, pipeline, then compile or warmup if they are asked for.
        phase: the one that runs; empty once the replica can draw.
        since: when that one began; once the replica can draw, since when it can.
        first_picture_seconds: what its first picture took; None before that is drawn.
        ray: version of Ray in this image; empty outside Ray.
        revision: the commit of the model's repository that was loaded; empty before, and where the source has no commits.
        warnings: what diffusers, transformers and peft warned of while they loaded the model, a line each.
        refused_loras: why a LoRA of the configuration cannot be used, by its name.
        batching: step: images of many requests share each denoising step; none: one image at a time; empty before.
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


class Starting:
    """Stops the time of each phase, and tells of every change; phases follow each other without a gap.

    Attributes:
        seconds: of each phase that is over.
    """

    def __init__(
        self,
        tell: Callable[[StartReport], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        began: float | None = None,
        ray: str = "",
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._tell = tell
        self._clock = clock
        # One look at the wall: a clock that is set meanwhile moves no phase.
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
        """The phase before is over, and this one begins."""
        self._go_on(phase)

    def fetched(self, revision: str) -> None:
        """The weights are there, of this commit; empty where the source has no commits. The next report has it."""
        self._revision = revision

    def loaded(
        self, warnings: Iterable[str], refused_loras: Mapping[str, str], *, batching: Batching
    ) -> None:
        """The model is in memory. The next report has what its libraries warned of, and the LoRAs that it goes without."""
        self._warnings, self._refused_loras = tuple(warnings), dict(refused_loras)
        self._batching = batching

    def done(self) -> None:
        """The last phase is over; the replica can draw."""
        self._go_on("")

    def drew(self, seconds: float) -> None:
        """The first picture was drawn."""
        self._first_picture_seconds = seconds
        self._tell(self.report())

    def report(self) -> StartReport:
        """What there is to tell now."""
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
        self._tell(self.report())
