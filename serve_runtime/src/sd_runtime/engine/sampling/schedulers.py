# SPDX-License-Identifier: Apache-2.0
"""The supported noise schedulers, by the names of `spec.model.scheduler`, and their options."""

import copy
import functools
import inspect
from collections.abc import Mapping
from typing import Any, get_args

import diffusers

from sd_runtime.config import SchedulerName, Sigmas
from sd_runtime.engine import schedule_options
from sd_runtime.engine.sampling.beta_sigmas import BetaSigmas
from sd_runtime.engine.schedule_options import AS_THE_MODEL, OFFERED, ScheduleOptions
from sd_runtime.errors import InvalidRequest

SCHEDULERS: dict[SchedulerName, str] = {
    "Euler": "EulerDiscreteScheduler",
    "EulerAncestral": "EulerAncestralDiscreteScheduler",
    "DDIM": "DDIMScheduler",
    "DDPM": "DDPMScheduler",
    "DPMSolverMultistep": "DPMSolverMultistepScheduler",
    "DPMSolverMultistepSDE": "DPMSolverMultistepScheduler",
    "DPMSolverSinglestep": "DPMSolverSinglestepScheduler",
    "DPMSolverSinglestepSDE": "DPMSolverSinglestepScheduler",
    "UniPC": "UniPCMultistepScheduler",
    "PNDM": "PNDMScheduler",
    "Heun": "HeunDiscreteScheduler",
    "LCM": "LCMScheduler",
}

_SETTINGS: dict[SchedulerName, dict[str, Any]] = {
    # By default PNDM starts with Runge-Kutta steps. Each costs three UNet calls, and they refuse fewer than four steps.
    # No published Stable Diffusion model uses them.
    "PNDM": {"skip_prk_steps": True},
    # DPM++ 2M SDE and DPM++ SDE: the same solvers, with fresh noise in each step.
    "DPMSolverMultistepSDE": {"algorithm_type": "sde-dpmsolver++"},
    # Single-step solvers end with steps of first order, because a final noise level of zero and odd numbers of steps
    # require it. Otherwise diffusers changes the setting itself, and logs a line for each image.
    "DPMSolverSinglestep": {"lower_order_final": True},
    "DPMSolverSinglestepSDE": {"lower_order_final": True, "algorithm_type": "sde-dpmsolver++"},
}
_SDE = "sde-"
_SDE_NAMES: dict[SchedulerName, SchedulerName] = {
    "DPMSolverMultistep": "DPMSolverMultistepSDE",
    "DPMSolverSinglestep": "DPMSolverSinglestepSDE",
}
_KEPT = 512  # every combination


def scheduler(name: SchedulerName, config: Any, options: ScheduleOptions = AS_THE_MODEL) -> Any:
    """Make a scheduler by name, with the noise schedule of the model's own one and the given options."""
    settings = dict(_SETTINGS.get(name, {}))
    if name in _SDE_NAMES and str(config.get("algorithm_type")).startswith(_SDE):
        settings["algorithm_type"] = "dpmsolver++"
    return _made(getattr(diffusers, SCHEDULERS[name]), config, settings, options)


def name_of(own: Any) -> str:
    """Return the public name of a scheduler; for an unsupported class, the name of the class."""
    kind = type(own).__name__
    name = next((name for name, offered in SCHEDULERS.items() if offered == kind), None)
    if name in _SDE_NAMES and own.config.algorithm_type.startswith(_SDE):
        return _SDE_NAMES[name]
    return name or kind


def is_offered(made: Any) -> bool:
    """Whether the class of a scheduler is a supported one."""
    return type(made).__name__ in SCHEDULERS.values()


def clips(made: Any) -> bool:
    """Whether a scheduler clips its predicted images.

    Some schedulers carry such settings in the model's configuration, but their class does not use them.
    """
    used = {"clip_sample", "thresholding"} & _parameters(type(made)).keys()
    return any(made.config.get(name) for name in used)


def offered(own: Any) -> Mapping[str, tuple[str, ...]]:
    """Return the options of each scheduler that a request may name, and of the model's own scheduler."""
    return {**OFFERED, name_of(own): _options(own)}


def fresh(own: Any, name: SchedulerName | None, steps: int, options: ScheduleOptions = AS_THE_MODEL) -> Any:
    """Make a scheduler for one image, by name or of the model's own class, with its timesteps set.

    Raises:
        InvalidRequest: the scheduler does not have an option, or does not support this number of steps.
    """
    chosen = name or name_of(own)
    schedule_options.check(chosen, offered(own)[chosen], options)
    made = copy.deepcopy(_unset(own, name, options))
    try:
        # Timesteps stay on the CPU, as the scheduler's other numbers do, so no step waits for a read from the device.
        made.set_timesteps(steps, device="cpu")
    except ValueError as error:
        raise InvalidRequest(
            f"steps: got {steps}: the scheduler {name_of(made)} does not support this number with this model",
            "steps",
        ) from error
    if hasattr(made, "set_begin_index"):
        # Without a begin index a scheduler searches for its first timestep, and takes the second of several equal ones.
        made.set_begin_index(0)
    _check_signal(made)
    return made


@functools.lru_cache(_KEPT)
def _unset(own: Any, name: SchedulerName | None, options: ScheduleOptions) -> Any:
    """Return the scheduler that `fresh` copies; building one takes five times as long as copying it."""
    if name is None:
        return _made(_plain(type(own)), own.config, {}, options)
    return scheduler(name, own.config, options)


def _made(kind: Any, config: Any, settings: Mapping[str, Any], options: ScheduleOptions) -> Any:
    chosen = {
        name: value for name, value in options._asdict().items() if name != "sigmas" and value is not None
    }
    curves = (
        {f"use_{each}_sigmas": each == options.sigmas for each in get_args(Sigmas)} if options.sigmas else {}
    )
    wanted = {**settings, **chosen, **curves}
    accepted = {name: value for name, value in wanted.items() if name in _parameters(kind)}
    if options.sigmas != "beta":
        return kind.from_config(config, **accepted)
    # The constructor requires SciPy for beta sigmas. The mixed-in method computes the same values without it.
    mixed: Any = type(kind.__name__, (BetaSigmas, kind), {})
    made = mixed.from_config(config, **accepted | {"use_beta_sigmas": False})
    made.register_to_config(use_beta_sigmas=True)
    return made


def _options(own: Any) -> tuple[str, ...]:
    """Return the options of a scheduler of any class; for an unsupported class, those that its constructor takes."""
    name = name_of(own)
    if name in OFFERED:
        return OFFERED[name]
    parameters = _parameters(type(own))
    spelled = {"sigmas": "use_karras_sigmas"}
    return tuple(each for each in ScheduleOptions._fields if spelled.get(each, each) in parameters)


def _parameters(kind: Any) -> Mapping[str, Any]:
    return inspect.signature(kind.__init__).parameters


def _plain(kind: Any) -> Any:
    """Return the diffusers class of a scheduler, without our mixin."""
    return getattr(diffusers, kind.__name__, kind)


def _check_signal(made: Any) -> None:
    """Refuse a first step without signal for a model that predicts noise.

    Where the latents are noise alone, a prediction of the noise contains nothing about the image.
    """
    alphas = getattr(made, "alphas_cumprod", None)
    if alphas is None or made.config.get("prediction_type") != "epsilon":
        return
    if (alphas[made.timesteps.long()] == 0).any():
        raise InvalidRequest(
            f"rescale_betas_zero_snr: got true: must be false with the scheduler {name_of(made)}: its first step"
            " would have no signal, and this model predicts noise",
            "rescale_betas_zero_snr",
        )
