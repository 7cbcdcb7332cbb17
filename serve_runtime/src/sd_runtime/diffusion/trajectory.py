# SPDX-License-Identifier: Apache-2.0
"""A picture's way through the noise: latents, schedule and random numbers of its own.

Nothing here is shared between pictures, so what a picture becomes does not depend on its neighbours.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.utils.torch_utils import randn_tensor

from sd_runtime.diffusion import clean_latents
from sd_runtime.diffusion.families import Conditions
from sd_runtime.engine import ImageRequest


class Trajectory:
    """Latents between noise and picture.

    Attributes:
        latents: one row; each step makes a new tensor, so a reader on another thread keeps what it has.
    """

    def __init__(
        self,
        *,
        scheduler: Any,
        request: ImageRequest,
        seed: int,
        conditions: Conditions,
        cell: int,
        channels: int,
    ) -> None:
        text = conditions["encoder_hidden_states"]
        self.conditions = conditions
        self._scheduler = scheduler
        self._guidance = request.guidance or 0.0
        self._rescale = request.guidance_rescale
        # On the CPU: noise does not depend on the device then.
        generator = torch.Generator("cpu").manual_seed(seed)
        takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        self._extra = {"generator": generator} if takes_generator else {}
        shape = (1, channels, (request.height or 0) // cell, (request.width or 0) // cell)
        noise = randn_tensor(shape, generator=generator, device=text.device, dtype=text.dtype)
        self.latents: torch.Tensor = noise * scheduler.init_noise_sigma
        self._index = 0
        self._clean: Callable[[], torch.Tensor] = lambda: self.latents

    @property
    def rows(self) -> int:
        """Rows of a UNet call that it takes."""
        return len(self.conditions["encoder_hidden_states"])

    @property
    def timestep(self) -> torch.Tensor:
        """Where in time the latents are, as the scheduler counts it."""
        timestep: torch.Tensor = self._scheduler.timesteps[self._index]
        return timestep

    def inputs(self) -> torch.Tensor:
        """What the UNet sees, one row for each of its conditions; asking twice changes nothing."""
        scaled: torch.Tensor = self._scheduler.scale_model_input(self.latents, self.timestep)
        return scaled.expand(self.rows, -1, -1, -1)

    def advance(self, prediction: torch.Tensor) -> None:
        """Take the step that the UNet's rows for this picture say."""
        guided = self._guided(prediction)
        stepped = self._scheduler.step(guided, self.timestep, self.latents, **self._extra, return_dict=False)
        self._clean = self._clean_image(guided, stepped)
        self.latents = stepped[0].to(self.latents.dtype)
        self._index += 1

    def predicted(self) -> torch.Tensor:
        """The image that the last step pointed to, as latents without noise; before the first step, the noise."""
        with torch.inference_mode():
            return self._clean()

    def _clean_image(
        self, guided: torch.Tensor, stepped: Sequence[torch.Tensor]
    ) -> Callable[[], torch.Tensor]:
        """Diffusers' own where the scheduler gives it, else computed once somebody asks for it."""
        if len(stepped) > 1:
            return lambda: stepped[1]
        return functools.partial(clean_latents.of, self._scheduler, self._index, self.latents, guided)

    def _guided(self, prediction: torch.Tensor) -> torch.Tensor:
        """Classifier-free guidance."""
        if self.rows == 1:
            return prediction
        avoid, follow = prediction.chunk(2)
        guided = avoid + self._guidance * (follow - avoid)
        if self._rescale > 0:
            guided = rescale_noise_cfg(guided, follow, guidance_rescale=self._rescale)
        return guided
