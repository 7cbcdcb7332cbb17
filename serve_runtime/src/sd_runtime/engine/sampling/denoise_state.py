# SPDX-License-Identifier: Apache-2.0
"""The denoising state of one image: its own latents, schedule and random numbers.

Images share nothing of this state, so the result of an image does not depend on the other images of its batch.
`unet_batch` computes the step of a batch; each image then advances by its part of the result.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.pipelines.families import Conditions
from sd_runtime.engine.sampling import clean_latents, schedulers, step_plan
from sd_runtime.engine.sampling.step_noise import StepNoise
from sd_runtime.engine.sampling.step_plan import StepPlan


class Advance(NamedTuple):
    """The result of one batch step for one image.

    Attributes:
        latents: the next latents, one row, float32.
        memory: the tensors that the next step needs beside the latents, one row for each slot of the plan. Further rows
            may follow, where another image of the batch has more slots.
        prediction: the guided prediction of the UNet, one row, float32.
    """

    latents: torch.Tensor
    memory: torch.Tensor
    prediction: torch.Tensor


class DenoiseState:
    """The state of one image between noise and result.

    Attributes:
        conditions: inputs of the UNet beside latents and timestep, one row for each UNet row of this image.
        guidance: the scale of classifier-free guidance.
        rescale: the share of rescaled guidance.
        plan: the steps of the schedule as numbers.
        noise: the random numbers of this image.
        latents: one row. Each step makes a new tensor, so the tensor that another thread reads never changes.
        memory: the tensors that earlier steps left for the next one, a row for each slot of the plan.
        index: the number of steps taken.
    """

    def __init__(
        self, plan: StepPlan, request: ImageRequest, seed: int, conditions: Conditions, shape: tuple[int, ...]
    ) -> None:
        text = conditions["encoder_hidden_states"]
        self.conditions = conditions
        self.guidance = request.guidance or 0.0
        self.rescale = request.guidance_rescale
        self.plan = plan
        self.noise = StepNoise(seed, shape, text.dtype, plan.noise)
        self.index = 0
        self.latents = self.noise.first().to(text.device) * plan.init_noise_sigma
        self.memory = self.latents.new_zeros((plan.slots, *shape[1:]))
        self._clean: Callable[[], torch.Tensor] = lambda: self.latents

    @property
    def rows(self) -> int:
        """The number of rows that this image takes in a UNet call."""
        return len(self.conditions["encoder_hidden_states"])

    def sample(self) -> torch.Tensor:
        """Return the input of the UNet, one row; `UNetBatch` multiplies it by the input scale of the plan."""
        return self.latents

    def advance(self, by: Advance) -> None:
        """Apply the step that the batch computed."""
        self._clean = functools.partial(self._clean_image, self.latents, by.prediction, self.index)
        self.latents = by.latents
        self.memory = by.memory[: self.plan.slots]
        self.noise.taken()
        self.index += 1

    def predicted(self) -> torch.Tensor:
        """Return the clean image that the last step predicted, as latents; before the first step, the noise."""
        with torch.inference_mode():
            return self._clean()

    def _clean_image(self, latents: torch.Tensor, prediction: torch.Tensor, index: int) -> torch.Tensor:
        of_latents, of_prediction = self.plan.cleans[index].tolist()
        clean: torch.Tensor = of_latents * latents + of_prediction * prediction
        return clean


class OwnSteps(DenoiseState):
    """The state of an image whose scheduler takes each step itself, because its steps are not linear or not known.

    For such an image the update of the batch passes on the guided prediction. Latents have the model's dtype, as in
    diffusers.
    """

    def __init__(
        self, scheduler: Any, request: ImageRequest, seed: int, conditions: Conditions, shape: tuple[int, ...]
    ) -> None:
        plan = StepPlan.passing(scheduler.timesteps, float(scheduler.init_noise_sigma))
        super().__init__(plan, request, seed, conditions, shape)
        self._scheduler = scheduler
        self._dtype = conditions["encoder_hidden_states"].dtype
        self.latents = self.latents.to(self._dtype)
        takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        self._extra = {"generator": self.noise.generator} if takes_generator else {}

    def sample(self) -> torch.Tensor:
        """Return the input of the UNet, scaled by the scheduler; a second call returns the same."""
        sample: torch.Tensor = self._scheduler.scale_model_input(self.latents, self._timestep)
        return sample

    def advance(self, by: Advance) -> None:
        """Let the scheduler take the step from the guided prediction."""
        guided, latents = by.prediction.to(self._dtype), self.latents
        stepped = self._scheduler.step(guided, self._timestep, latents, **self._extra, return_dict=False)
        if len(stepped) > 1:
            self._clean = lambda: stepped[1]
        else:
            self._clean = functools.partial(clean_latents.of, self._scheduler, self.index, latents, guided)
        self.latents = stepped[0].to(self._dtype)
        self.noise.taken()
        self.index += 1

    @property
    def _timestep(self) -> torch.Tensor:
        timestep: torch.Tensor = self._scheduler.timesteps[self.index]
        return timestep


def begin(
    own: Any, request: ImageRequest, *, seed: int, conditions: Conditions, channels: int, cell: int
) -> DenoiseState:
    """Make the state of an image before its first step.

    Args:
        own: the model's scheduler.
        request: the request, with every default filled in.
        seed: the seed of this image.
        conditions: see DenoiseState.
        channels: the channels of its latents.
        cell: the side of one cell of the latents, in pixels.

    Raises:
        InvalidRequest: the scheduler does not have an option of the request, or does not support its number of steps.
    """
    shape = (1, channels, (request.height or 0) // cell, (request.width or 0) // cell)
    wanted = (own, request.scheduler, request.steps or 1, request.schedule)
    plan = step_plan.planned(*wanted)
    if plan is None:
        return OwnSteps(schedulers.fresh(*wanted), request, seed, conditions, shape)
    return DenoiseState(plan, request, seed, conditions, shape)
