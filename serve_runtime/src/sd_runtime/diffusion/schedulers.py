# SPDX-License-Identifier: Apache-2.0
"""The noise schedulers on offer, by the names of `spec.model.scheduler`."""

import copy
import functools
from typing import Any

import diffusers

from sd_runtime.config import SchedulerName
from sd_runtime.errors import InvalidRequest

SCHEDULERS: dict[SchedulerName, str] = {
    "Euler": "EulerDiscreteScheduler",
    "EulerAncestral": "EulerAncestralDiscreteScheduler",
    "DDIM": "DDIMScheduler",
    "DDPM": "DDPMScheduler",
    "DPMSolverMultistep": "DPMSolverMultistepScheduler",
    "UniPC": "UniPCMultistepScheduler",
    "PNDM": "PNDMScheduler",
    "Heun": "HeunDiscreteScheduler",
    "LCM": "LCMScheduler",
}

# Runge-Kutta steps first, PNDM's default, cost three calls each and refuse fewer than four steps; no published
# Stable Diffusion takes them.
_SETTINGS: dict[SchedulerName, dict[str, Any]] = {"PNDM": {"skip_prk_steps": True}}


def scheduler(name: SchedulerName, config: Any) -> Any:
    """A scheduler of that name with the noise schedule of the model's own one."""
    return getattr(diffusers, SCHEDULERS[name]).from_config(config, **_SETTINGS.get(name, {}))


def name_of(own: Any) -> str:
    """What a scheduler is called here; the class's name if it is not on offer."""
    kind = type(own).__name__
    return next((name for name, offered in SCHEDULERS.items() if offered == kind), kind)


def fresh(own: Any, name: SchedulerName | None, steps: int) -> Any:
    """A scheduler for one picture: of that name or the model's own kind, set to so many steps.

    Raises:
        InvalidRequest: it cannot take so many steps.
    """
    made = copy.deepcopy(_unset(own, name))
    try:
        # Timesteps stay on the CPU, as its other numbers do: no step waits for the device to tell one.
        made.set_timesteps(steps, device="cpu")
    except ValueError as error:
        raise InvalidRequest(
            f"steps: got {steps}: the scheduler {name_of(made)} cannot take that many with this model",
            "steps",
        ) from error
    return made


@functools.lru_cache
def _unset(own: Any, name: SchedulerName | None) -> Any:
    """What `fresh` copies: to build one takes five times as long."""
    return type(own).from_config(own.config) if name is None else scheduler(name, own.config)
