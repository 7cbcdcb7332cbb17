# SPDX-License-Identifier: Apache-2.0
"""The noise schedulers on offer, by the names of `spec.model.scheduler`."""

from typing import Any

import diffusers

from sd_runtime.config import SchedulerName

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


def scheduler(name: SchedulerName, config: Any) -> Any:
    """A scheduler of that name with the noise schedule of the model's own one."""
    return getattr(diffusers, SCHEDULERS[name]).from_config(config)
