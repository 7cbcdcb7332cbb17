# SPDX-License-Identifier: Apache-2.0
"""An image's way through the noise: latents, schedule and random numbers of its own.

Nothing here is shared between images, so what an image becomes does not depend on its neighbours. `predicting` computes
the step of a batch; each image then advances by what came of it.
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
    """What a step of the batch made of one image.

    Attributes:
        latents: the next ones, one row, float32.
        memory: what the next step needs beside them: a row for each slot of the plan, and perhaps rows for neighbours.
        prediction: of the UNet, guided, one row, float32.
    """

    latents: torch.Tensor
    memory: torch.Tensor
    prediction: torch.Tensor


class DenoiseState:
    """Latents between noise and image.

    Attributes:
        conditions: inputs of the UNet beside latents and time, one row for each of its rows.
        guidance: scale of classifier-free guidance.
        rescale: share of rescaled guidance.
        plan: its steps as numbers.
        noise: its random numbers.
        latents: one row; each step makes a new tensor, so a reader on another thread keeps what it has.
        memory: what earlier steps left for the next one, a row for each slot of the plan.
        index: steps taken.
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
        """Rows of a UNet call that it takes."""
        return len(self.conditions["encoder_hidden_states"])

    def sample(self) -> torch.Tensor:
        """What the UNet sees, up to the scale of the plan: one row."""
        return self.latents

    def advance(self, by: Advance) -> None:
        """Take the step that was computed."""
        self._clean = functools.partial(self._clean_image, self.latents, by.prediction, self.index)
        self.latents = by.latents
        self.memory = by.memory[: self.plan.slots]
        self.noise.taken()
        self.index += 1

    def predicted(self) -> torch.Tensor:
        """The image that the last step pointed to, as latents without noise; before the first step, the noise."""
        with torch.inference_mode():
            return self._clean()

    def _clean_image(self, latents: torch.Tensor, prediction: torch.Tensor, index: int) -> torch.Tensor:
        of_latents, of_prediction = self.plan.cleans[index].tolist()
        clean: torch.Tensor = of_latents * latents + of_prediction * prediction
        return clean


class OwnSteps(DenoiseState):
    """An image whose scheduler steps by itself, since its steps are not linear or nothing is known of them.

    The update of a batch passes on its guided prediction. Latents are of the model's type, as diffusers has them.
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
        """Scaled by the scheduler; asking twice changes nothing."""
        sample: torch.Tensor = self._scheduler.scale_model_input(self.latents, self._timestep)
        return sample

    def advance(self, by: Advance) -> None:
        """Let the scheduler step."""
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
    """An image before its first step.

    Args:
        own: the model's scheduler.
        request: with every default filled in.
        seed: of this image.
        conditions: see Trajectory.
        channels: of its latents.
        cell: pixels that a side of one of its latents stands for.

    Raises:
        InvalidRequest: its scheduler has no such option, or cannot take so many steps.
    """
    shape = (1, channels, (request.height or 0) // cell, (request.width or 0) // cell)
    wanted = (own, request.scheduler, request.steps or 1, request.schedule)
    plan = step_plan.planned(*wanted)
    if plan is None:
        return OwnSteps(schedulers.fresh(*wanted), request, seed, conditions, shape)
    return DenoiseState(plan, request, seed, conditions, shape)
