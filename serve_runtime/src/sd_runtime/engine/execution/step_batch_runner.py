# SPDX-License-Identifier: Apache-2.0
"""The denoising loop: at each tick the pictures of one kind take a step each, in one UNet call.

Prepared pictures join, leave and fail between ticks. It knows no threads: `worker` drives it, and so do tests.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch

from sd_runtime.engine import failures
from sd_runtime.engine.device import Device
from sd_runtime.engine.execution.batcher import Budget, Groups
from sd_runtime.engine.image_task import Drawing
from sd_runtime.engine.lora.lora_switch import LoraSwitch
from sd_runtime.engine.sampling.unet_batch import NoisePredictor
from sd_runtime.observability.observer import Observer


@dataclass
class Tick:
    """What one tick changed.

    Attributes:
        advanced: pictures that took a step.
        finished: those of them that took their last one.
        failed: pictures that are out, and why.
        cancelled: pictures that are out, unwanted.
    """

    advanced: list[Drawing] = field(default_factory=list)
    finished: list[Drawing] = field(default_factory=list)
    failed: list[tuple[Drawing, Exception]] = field(default_factory=list)
    cancelled: list[Drawing] = field(default_factory=list)


class Studio(Protocol):
    """Where pictures are drawn, a tick at a time; used by one thread."""

    @property
    def budget(self) -> Budget:
        """What one tick may hold."""

    def join(self, drawing: Drawing) -> None:
        """Draw it from the next tick on."""

    def tick(self) -> Tick:
        """Draw on."""

    def drawings(self) -> Sequence[Drawing]:
        """All that are not finished."""

    def ahead(self, drawing: Drawing) -> int:
        """Pictures that wait before it."""


class Denoiser:
    """The studio for pipelines of a known family."""

    def __init__(
        self,
        *,
        predict: NoisePredictor,
        loras: LoraSwitch,
        groups: Groups,
        budget: Budget,
        device: Device,
        observer: Observer,
    ) -> None:
        self.budget = budget
        self._device = device
        self._predict = predict
        self._loras = loras
        self._observer = observer
        self._groups = groups

    def join(self, drawing: Drawing) -> None:
        """Let a prepared image take its first step in the next call of its batch key that has room."""
        self._groups.add(drawing)

    def drawings(self) -> Sequence[Drawing]:
        """All that are not finished."""
        return self._groups.all()

    def ahead(self, drawing: Drawing) -> int:
        """Pictures that wait before it."""
        return self._groups.ahead(drawing)

    def tick(self) -> Tick:
        """Let the pictures whose turn it is take a step."""
        done = Tick(cancelled=[drawing for drawing in self._groups.all() if drawing.cancelled])
        self._groups.drop(done.cancelled)
        batch = self._groups.next(self.budget)
        if batch:
            with torch.inference_mode():
                self._draw(batch, done)
            self._groups.drop(drawing for drawing, _ in done.failed)
            self._groups.drop(done.finished)
        return done

    def _draw(self, batch: Sequence[Drawing], done: Tick) -> None:
        try:
            self._loras.activate(*batch[0].kind.active_loras)
        except Exception as error:  # noqa: BLE001 - other kinds are drawn on
            done.failed += [(drawing, error) for drawing in batch]
            return
        for drawing in batch:
            if not drawing.begun:
                self._begin(drawing)
        rows = sum(drawing.rows for drawing in batch)
        with self._device.timed(partial(self._observer.step, len(batch), rows)):
            self._advance(batch, done)

    def _begin(self, drawing: Drawing) -> None:
        trajectory = drawing.trajectory
        self._device.adopt(
            [trajectory.latents, trajectory.memory, *trajectory.conditions.values()], drawing.ready
        )
        drawing.begun = True
        began = time.monotonic()
        self._observer.phase("queue", began - drawing.since)
        drawing.since = began

    def _advance(self, batch: Sequence[Drawing], done: Tick) -> None:
        """Take one step with all; what fails together is tried in halves, so that only the culprit fails."""
        error = self._try_advance(batch, done)
        if error is None:
            self.budget.calm()
            return
        if failures.out_of_memory(error):
            self.budget.shrink(sum(each.rows * each.kind.height * each.kind.width for each in batch))
            failures.free_memory()
        if len(batch) == 1:
            done.failed.append((batch[0], error))
            return
        half = len(batch) // 2
        self._advance(batch[:half], done)
        self._advance(batch[half:], done)

    def _try_advance(self, batch: Sequence[Drawing], done: Tick) -> Exception | None:
        try:
            advances = self._predict([drawing.trajectory for drawing in batch])
        except Exception as error:  # noqa: BLE001 - whatever failed, the others are drawn
            # Its frames hold the tensors that did not fit.
            return error.with_traceback(None) if failures.out_of_memory(error) else error
        for drawing, advance in zip(batch, advances, strict=True):
            try:
                drawing.trajectory.advance(advance)
            except Exception as error:  # noqa: BLE001 - likewise
                done.failed.append((drawing, error))
            else:
                self._count(drawing, done)
        return None

    def _count(self, drawing: Drawing, done: Tick) -> None:
        drawing.step += 1
        done.advanced.append(drawing)
        if drawing.finished:
            done.finished.append(drawing)
            self._observer.phase("denoise", time.monotonic() - drawing.since)
