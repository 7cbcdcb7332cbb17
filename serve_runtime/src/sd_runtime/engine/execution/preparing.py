# SPDX-License-Identifier: Apache-2.0
"""Prepares image tasks for their first step: encodes prompts, and creates noise and a noise schedule for each image.

This module does not depend on threads: `admission` calls it beside the denoising loop, and so do warm-up and tests. All
tensors of an image task are on the device when `Preparer.prepare` returns.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import torch

from sd_runtime.engine import failures
from sd_runtime.engine.device import Device
from sd_runtime.engine.execution.prompt_cache import PromptCache
from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.lora.lora_switch import LoraSwitch
from sd_runtime.engine.pipelines.families import Conditions, Family
from sd_runtime.engine.sampling.denoise_state import begin
from sd_runtime.engine.sampling.step_noise import StepNoise
from sd_runtime.observability.observer import Observer

Failure = tuple[ImageTask, Exception]
Prepare = Callable[[Sequence[ImageTask]], list[Failure]]
"""A function that prepares image tasks for the denoising loop, and returns the failed ones with their errors."""


class Preparer:
    """Prepares image tasks for pipelines of a known family; only one thread may use it."""

    def __init__(
        self,
        pipeline: Any,
        family: Family,
        *,
        loras: LoraSwitch,
        device: Device,
        observer: Observer,
        draw_ahead: Callable[[StepNoise], None],
    ) -> None:
        """Create a preparer; the constructor computes nothing.

        Args:
            pipeline: the model's pipeline.
            family: the family of the pipeline.
            loras: the LoRA switch of the text encoders; another thread has a switch for the UNet.
            device: the device that computes.
            observer: receives counts and times of encodings.
            draw_ahead: generates the noise of an image's next steps in advance.
        """
        self._pipeline = pipeline
        self._family = family
        self._device = device
        self._draw_ahead = draw_ahead
        self._prompts = PromptCache(family, loras, observer)

    def prepare(self, tasks: Sequence[ImageTask]) -> list[Failure]:
        """Give image tasks their trajectories; prompts with the same set of LoRAs are encoded together.

        Images of one request share the tensors of its prompts. So a waiting image holds only its latents.

        Returns:
            The tasks that cannot be prepared, each with its error.
        """
        with torch.inference_mode():
            failed = [failure for same in _by_loras(tasks) for failure in self._prepare(same)]
        ready = self._device.mark()
        for task in tasks:
            task.ready = ready
        self._device.wait([ready])
        return failed

    def _prepare(self, tasks: Sequence[ImageTask]) -> list[Failure]:
        """Prepare all tasks at once; if that fails, prepare them one by one, so that only the faulty task fails."""
        try:
            self._give_trajectories(tasks)
        except Exception as error:  # noqa: BLE001 - one failed image must not stop the others
            if failures.out_of_memory(error):
                error = error.with_traceback(None)  # the frames of the traceback hold tensors
                failures.free_memory()
            if len(tasks) == 1:
                return [(tasks[0], error)]
        else:
            return []
        return [failure for each in tasks for failure in self._prepare([each])]

    def _give_trajectories(self, tasks: Sequence[ImageTask]) -> None:
        prompts = [prompt for task in tasks for prompt in task.prompts]
        encodings = self._prompts.encode(prompts, tasks[0].kind.active_loras)
        for _, of_request in groupby(tasks, key=lambda each: id(each.request)):
            first, *others = of_request
            positive, *negative = (encodings[prompt] for prompt in first.prompts)
            conditions = self._family.conditions(
                first.request, positive, negative[0] if negative else positive
            )
            for task in (first, *others):
                self._give_trajectory(task, conditions)

    def _give_trajectory(self, task: ImageTask, conditions: Conditions) -> None:
        task.trajectory = begin(
            self._pipeline.scheduler,
            task.request,
            seed=task.seed,
            conditions=conditions,
            channels=self._pipeline.unet.config.in_channels,
            cell=self._pipeline.vae_scale_factor,
        )
        task.steps = task.trajectory.plan.steps
        task.trajectory.noise.refill = self._draw_ahead
        self._draw_ahead(task.trajectory.noise)


def as_they_are(_: Sequence[ImageTask]) -> list[Failure]:
    """Prepare nothing; pipelines that generate with their own `__call__` prepare their images themselves."""
    return []


def _by_loras(tasks: Iterable[ImageTask]) -> list[list[ImageTask]]:
    found: dict[Any, list[ImageTask]] = {}
    for task in tasks:
        found.setdefault(task.kind.active_loras, []).append(task)
    return list(found.values())
