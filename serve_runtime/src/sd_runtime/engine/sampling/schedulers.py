# SPDX-License-Identifier: Apache-2.0
"""The noise schedulers on offer, by the names of `spec.model.scheduler`, and their options."""

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
    # Runge-Kutta steps first, PNDM's default, cost three calls each and refuse fewer than four steps; no published
    # Stable Diffusion takes them.
    "PNDM": {"skip_prk_steps": True},
    # DPM++ 2M SDE and DPM++ SDE: the same solvers, with fresh noise in each step.
    "DPMSolverMultistepSDE": {"algorithm_type": "sde-dpmsolver++"},
    # Single-step solvers end with steps of first order, as a final noise level of zero and odd numbers of steps need;
    # diffusers changes the setting by itself, and logs so for each image.
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
    """A scheduler of that name with the noise schedule of the model's own one, changed as the options say."""
    settings = dict(_SETTINGS.get(name, {}))
    if name in _SDE_NAMES and str(config.get("algorithm_type")).startswith(_SDE):
        settings["algorithm_type"] = "dpmsolver++"
    return _made(getattr(diffusers, SCHEDULERS[name]), config, settings, options)


def name_of(own: Any) -> str:
    """What a scheduler is called here; the class's name if it is not on offer."""
    kind = type(own).__name__
    name = next((name for name, offered in SCHEDULERS.items() if offered == kind), None)
    if name in _SDE_NAMES and own.config.algorithm_type.startswith(_SDE):
        return _SDE_NAMES[name]
    return name or kind


def is_offered(made: Any) -> bool:
    """Whether a scheduler is of a class on offer."""
    return type(made).__name__ in SCHEDULERS.values()


def clips(made: Any) -> bool:
    """Whether a scheduler clips the images that it predicts; some have such settings of the model and no use for them."""
    used = {"clip_sample", "thresholding"} & _parameters(type(made)).keys()
    return any(made.config.get(name) for name in used)


def offered(own: Any) -> Mapping[str, tuple[str, ...]]:
    """The options of each scheduler that a request may name, and of the model's own one."""
    return {**OFFERED, name_of(own): _options(own)}


def fresh(own: Any, name: SchedulerName | None, steps: int, options: ScheduleOptions = AS_THE_MODEL) -> Any:
    """A scheduler for one picture: of that name or the model's own kind, set to so many steps.

    Raises:
        InvalidRequest: it has no such option, or cannot take so many steps.
    """
    chosen = name or name_of(own)
    schedule_options.check(chosen, offered(own)[chosen], options)
    made = copy.deepcopy(_unset(own, name, options))
    try:
        # Timesteps stay on the CPU, as its other numbers do: no step waits for the device to tell one.
        made.set_timesteps(steps, device="cpu")
    except ValueError as error:
        raise InvalidRequest(
            f"steps: got {steps}: the scheduler {name_of(made)} does not support this number with this model",
            "steps",
        ) from error
    if hasattr(made, "set_begin_index"):
        # Without it a scheduler looks for its first timestep, and takes the second of several that are equal.
        made.set_begin_index(0)
    _check_signal(made)
    return made


@functools.lru_cache(_KEPT)
def _unset(own: Any, name: SchedulerName | None, options: ScheduleOptions) -> Any:
    """What `fresh` copies: to build one takes five times as long."""
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
    # Its constructor wants SciPy; what it computes with it, the mixed-in method does.
    mixed: Any = type(kind.__name__, (BetaSigmas, kind), {})
    made = mixed.from_config(config, **accepted | {"use_beta_sigmas": False})
    made.register_to_config(use_beta_sigmas=True)
    return made


def _options(own: Any) -> tuple[str, ...]:
    """What a scheduler of any class can be asked for: of one that is not on offer, what its constructor takes."""
    name = name_of(own)
    if name in OFFERED:
        return OFFERED[name]
    parameters = _parameters(type(own))
    spelled = {"sigmas": "use_karras_sigmas"}
    return tuple(each for each in ScheduleOptions._fields if spelled.get(each, each) in parameters)


def _parameters(kind: Any) -> Mapping[str, Any]:
    return inspect.signature(kind.__init__).parameters


def _plain(kind: Any) -> Any:
    """A scheduler's class as diffusers has it."""
    return getattr(diffusers, kind.__name__, kind)


def _check_signal(made: Any) -> None:
    """A model that predicts noise says nothing of the picture where there is nothing but noise."""
    alphas = getattr(made, "alphas_cumprod", None)
    if alphas is None or made.config.get("prediction_type") != "epsilon":
        return
    if (alphas[made.timesteps.long()] == 0).any():
        raise InvalidRequest(
            f"rescale_betas_zero_snr: got true: must be false with the scheduler {name_of(made)}: its first step"
            " would have no signal, and this model predicts noise",
            "rescale_betas_zero_snr",
        )
