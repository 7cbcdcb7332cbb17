# SPDX-License-Identifier: Apache-2.0
"""The denoising loop: at each tick the pictures of one kind take a step each, in one UNet call.

Pictures join, leave and fail between ticks. It knows no threads: `worker` drives it, and so do tests.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch

from sd_runtime.diffusion import failures
from sd_runtime.diffusion.device import Device
from sd_runtime.diffusion.drawing import Drawing
from sd_runtime.diffusion.families import Family
from sd_runtime.diffusion.groups import Budget, Groups
from sd_runtime.diffusion.loras import LoraSwitch
from sd_runtime.diffusion.predicting import NoisePredictor
from sd_runtime.diffusion.prompts import Prompts
from sd_runtime.diffusion.trajectory import Trajectory, begin
from sd_runtime.observer import Observer


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
        pipeline: Any,
        family: Family,
        *,
        predict: NoisePredictor,
        loras: LoraSwitch,
        budget: Budget,
        device: Device,
        observer: Observer,
    ) -> None:
        self.budget = budget
        self._device = device
        self._pipeline = pipeline
        self._family = family
        self._predict = predict
        self._loras = loras
        self._observer = observer
        self._prompts = Prompts(family, observer)
        self._groups = Groups()

    def join(self, drawing: Drawing) -> None:
        """It takes its first step in the next call of its kind that has room."""
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
        self._begin([drawing for drawing in batch if drawing.trajectory is None], done)
        ready = [drawing for drawing in batch if drawing.trajectory is not None]
        if ready:
            rows = sum(drawing.rows for drawing in ready)
            with self._device.timed(partial(self._observer.step, len(ready), rows)):
                self._advance(ready, done)

    def _begin(self, new: Sequence[Drawing], done: Tick) -> None:
        """Give new pictures their texts and their noise; if that fails for several, one by one."""
        error = self._try_begin(new)
        if error is None:
            return
        if len(new) == 1:
            done.failed.append((new[0], error))
            return
        for drawing in new:
            self._begin([drawing], done)

    def _try_begin(self, new: Sequence[Drawing]) -> Exception | None:
        try:
            prompts = [prompt for drawing in new for prompt in drawing.prompts]
            encodings = self._prompts.encode(prompts, new[0].kind.active_loras) if new else {}
            for drawing in new:
                positive, *negative = (encodings[prompt] for prompt in drawing.prompts)
                trajectory = self._trajectory(drawing, positive, negative[0] if negative else positive)
                drawing.trajectory = trajectory
        except Exception as error:  # noqa: BLE001 - whatever failed, the others are drawn
            return error
        return None

    def _trajectory(self, drawing: Drawing, positive: Any, negative: Any) -> Trajectory:
        request = drawing.request
        trajectory = begin(
            self._pipeline.scheduler,
            request,
            seed=drawing.seed,
            conditions=self._family.conditions(request, positive, negative),
            channels=self._pipeline.unet.config.in_channels,
            cell=self._pipeline.vae_scale_factor,
        )
        drawing.steps = trajectory.plan.steps
        self._observer.phase("queue", time.monotonic() - drawing.since)
        drawing.since = time.monotonic()
        return trajectory

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
