# SPDX-License-Identifier: Apache-2.0
"""The denoising loop: at each tick, image tasks of one batch key take one step each, in one UNet call.

Prepared image tasks join and leave between ticks. This module does not depend on threads: `worker` calls it, and so do
tests.
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
    """The results of one tick.

    Attributes:
        advanced: image tasks that took a step.
        finished: the advanced tasks that took their last step.
        failed: tasks that were removed because they failed, each with its error.
        cancelled: tasks that were removed because they were cancelled.
    """

    advanced: list[ImageTask] = field(default_factory=list)
    finished: list[ImageTask] = field(default_factory=list)
    failed: list[tuple[ImageTask, Exception]] = field(default_factory=list)
    cancelled: list[ImageTask] = field(default_factory=list)


class Runner(Protocol):
    """Generates images, one tick at a time; only one thread may use it."""

    @property
    def budget(self) -> BatchLimits:
        """The largest batch of one tick."""

    def join(self, task: ImageTask) -> None:
        """Add a prepared image task, from the next tick on."""

    def tick(self) -> Tick:
        """Advance the next batch by a tick, and return the results."""

    def tasks(self) -> Sequence[ImageTask]:
        """Return the image tasks that are not finished."""

    def ahead(self, task: ImageTask) -> int:
        """Return how many images come before this one."""


class StepBatchRunner:
    """The runner for pipelines of a known family; images of many requests share each step."""

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
        """Add a prepared image task; its first step is in the next call of its batch key with free capacity."""
        self._groups.add(task)

    def tasks(self) -> Sequence[ImageTask]:
        """Return the image tasks that are not finished."""
        return self._groups.all()

    def ahead(self, task: ImageTask) -> int:
        """Return how many images of the same batch key start before this one."""
        return self._groups.ahead(task)

    def tick(self) -> Tick:
        """Advance the next batch of image tasks by one step."""
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
        except Exception as error:  # noqa: BLE001 - this batch fails, and other batch keys continue
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
        """Advance all tasks of the batch; on an error, retry in halves, so that only the faulty task fails."""
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
        except Exception as error:  # noqa: BLE001 - one failed image must not stop the others
            # The frames of the traceback hold the tensors that did not fit.
            return error.with_traceback(None) if failures.out_of_memory(error) else error
        for task, advance in zip(batch, advances, strict=True):
            try:
                task.trajectory.advance(advance)
            except Exception as error:  # noqa: BLE001 - for the same reason
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
