# SPDX-License-Identifier: Apache-2.0
"""The options of the noise schedule that a request may set, by scheduler (pure)."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sd_runtime.config import Sigmas, TimestepSpacing
from sd_runtime.errors import InvalidRequest

_SPACED = ("timestep_spacing",)
_RESCALED = (*_SPACED, "rescale_betas_zero_snr")
_FULL = ("sigmas", *_RESCALED)

OFFERED: Mapping[str, tuple[str, ...]] = {
    "Euler": _FULL,
    "EulerAncestral": _RESCALED,
    "DDIM": _RESCALED,
    "DDPM": _RESCALED,
    "DPMSolverMultistep": _FULL,
    "DPMSolverMultistepSDE": _FULL,
    "DPMSolverSinglestep": ("sigmas",),
    "DPMSolverSinglestepSDE": ("sigmas",),
    "UniPC": _FULL,
    "PNDM": _SPACED,
    "Heun": ("sigmas", *_SPACED),
    "LCM": ("rescale_betas_zero_snr",),
}
"""For each scheduler that a request may name: the fields of ScheduleOptions that have an effect on it."""


class ScheduleOptions(NamedTuple):
    """How the noise levels of the steps are chosen; None: as the model's own configuration sets it.

    Attributes:
        sigmas: the curve of noise levels: Karras et al., exponential, or quantiles of a beta distribution.
        timestep_spacing: where the steps lie among the training timesteps.
        rescale_betas_zero_snr: let the first step start from pure noise (arXiv 2305.08891).
    """

    sigmas: Sigmas | None = None
    timestep_spacing: TimestepSpacing | None = None
    rescale_betas_zero_snr: bool | None = None


AS_THE_MODEL = ScheduleOptions()
"""All options are as the model's own configuration sets them."""


def check(scheduler: str, offered: Collection[str], options: ScheduleOptions) -> None:
    """Raise InvalidRequest if a scheduler would ignore one of the options; `false` counts as not set."""
    for name, value in options._asdict().items():
        if value and name not in offered:
            able = ", ".join(each for each, fields in OFFERED.items() if name in fields)
            shown = "true" if value is True else repr(value)
            raise InvalidRequest(
                f"{name}: got {shown}: the scheduler {scheduler} has no such option; schedulers with it: {able}",
                name,
            )
