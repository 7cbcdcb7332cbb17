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
from sd_runtime.engine.execution.batcher import Batcher, BatchLimits
from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.lora.lora_switch import LoraSwitch
from sd_runtime.engine.sampling.unet_batch import UNetBatch
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

    advanced: list[ImageTask] = field(default_factory=list)
    finished: list[ImageTask] = field(default_factory=list)
    failed: list[tuple[ImageTask, Exception]] = field(default_factory=list)
    cancelled: list[ImageTask] = field(default_factory=list)


class Runner(Protocol):
    """Where pictures are drawn, a tick at a time; used by one thread."""

    @property
    def budget(self) -> BatchLimits:
        """What one tick may hold."""

    def join(self, task: ImageTask) -> None:
        """Draw it from the next tick on."""

    def tick(self) -> Tick:
        """Draw on."""

    def tasks(self) -> Sequence[ImageTask]:
        """All that are not finished."""

    def ahead(self, task: ImageTask) -> int:
        """Pictures that wait before it."""


class StepBatchRunner:
    """The studio for pipelines of a known family."""

    def __init__(
        self,
        *,
        predict: UNetBatch,
        loras: LoraSwitch,
        groups: Batcher,
        budget: BatchLimits,
        device: Device,
        observer: Observer,
    ) -> None:
        self.budget = budget
        self._device = device
        self._predict = predict
        self._loras = loras
        self._observer = observer
        self._groups = groups

    def join(self, task: ImageTask) -> None:
        """Let a prepared image take its first step in the next call of its batch key that has room."""
        self._groups.add(task)

    def tasks(self) -> Sequence[ImageTask]:
        """All that are not finished."""
        return self._groups.all()

    def ahead(self, task: ImageTask) -> int:
        """Pictures that wait before it."""
        return self._groups.ahead(task)

    def tick(self) -> Tick:
        """Let the pictures whose turn it is take a step."""
        done = Tick(cancelled=[task for task in self._groups.all() if task.cancelled])
        self._groups.drop(done.cancelled)
        batch = self._groups.next(self.budget)
        if batch:
            with torch.inference_mode():
                self._draw(batch, done)
            self._groups.drop(task for task, _ in done.failed)
            self._groups.drop(done.finished)
        return done

    def _draw(self, batch: Sequence[ImageTask], done: Tick) -> None:
        try:
            self._loras.activate(*batch[0].kind.active_loras)
        except Exception as error:  # noqa: BLE001 - other kinds are drawn on
            done.failed += [(task, error) for task in batch]
            return
        for task in batch:
            if not task.begun:
                self._begin(task)
        rows = sum(task.rows for task in batch)
        with self._device.timed(partial(self._observer.step, len(batch), rows)):
            self._advance(batch, done)

    def _begin(self, task: ImageTask) -> None:
        trajectory = task.trajectory
        self._device.adopt(
            [trajectory.latents, trajectory.memory, *trajectory.conditions.values()], task.ready
        )
        task.begun = True
        began = time.monotonic()
        self._observer.phase("queue", began - task.since)
        task.since = began

    def _advance(self, batch: Sequence[ImageTask], done: Tick) -> None:
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

    def _try_advance(self, batch: Sequence[ImageTask], done: Tick) -> Exception | None:
        try:
            advances = self._predict([task.trajectory for task in batch])
        except Exception as error:  # noqa: BLE001 - whatever failed, the others are drawn
            # Its frames hold the tensors that did not fit.
            return error.with_traceback(None) if failures.out_of_memory(error) else error
        for task, advance in zip(batch, advances, strict=True):
            try:
                task.trajectory.advance(advance)
            except Exception as error:  # noqa: BLE001 - likewise
                done.failed.append((task, error))
            else:
                self._count(task, done)
        return None

    def _count(self, task: ImageTask, done: Tick) -> None:
        task.step += 1
        done.advanced.append(task)
        if task.finished:
            done.finished.append(task)
            self._observer.phase("denoise", time.monotonic() - task.since)
