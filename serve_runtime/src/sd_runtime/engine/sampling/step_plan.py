# SPDX-License-Identifier: Apache-2.0
"""A schedule's steps as numbers, so that images with different schedulers advance in one update.

A step of the supported schedulers is linear. The next latents, and the tensors that a solver keeps for later steps, are
sums of the latents, the prediction, new noise and the kept tensors, each times a number. The numbers depend on the
scheduler, its options and the step, never on the image. A plan contains them for every step of one schedule.

The numbers are read from diffusers' own scheduler. A probe steps it once through its timesteps with unit vectors in
place of tensors; the results are the coefficients. No formula is written a second time. So a new version of diffusers,
another curve of sigmas or a higher order of a solver needs no change here.

Each unit vector also carries one random number, the witness, which differs in each step. A linear step transforms these
random numbers as its coefficients predict. A step that clips, thresholds or keeps hidden state does not. Such a schedule
has no plan, and its scheduler takes each step itself, one image at a time.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.overrides import TorchFunctionMode

from sd_runtime.config import SchedulerName
from sd_runtime.engine.sampling import clean_latents, schedulers
from sd_runtime.engine.schedule_options import ScheduleOptions

Numbers = npt.NDArray[np.float32]
Row = npt.NDArray[np.float64]

LATENTS, PREDICTION, NOISE, MEMORY = 0, 1, 2, 3
"""Columns of an update; the columns of the memory slots start at MEMORY."""

MODEL_TYPE = torch.float64
"""Placeholder for the model's dtype in `StepPlan.noise`. It is the dtype of the probe; no model computes in it."""

_SLOTS = 8  # more than any supported scheduler keeps between two steps
_TERMS = MEMORY + _SLOTS
_KEPT = 128  # plans in the cache; one of 50 steps takes about 4 kB
_CLOSE = 1e-4  # tolerance, as a share of the sum of magnitudes: several schedulers compute in float32
_WITNESS_SPREAD = 1e6  # far outside any range to which a scheduler may clip


@dataclass(frozen=True)
class StepPlan:
    """Every step of one schedule, as numbers.

    Attributes:
        timesteps: shape (steps,): the timestep that the UNet receives.
        init_noise_sigma: the standard deviation of the first latents.
        input_scales: shape (steps,): the input of the UNet is the latents times this number.
        updates: shape (steps, 1 + slots, 3 + slots). Row 0 gives the next latents; the other rows give the memory for the
            next step. The constants of this module name the columns.
        cleans: shape (steps, 2): the coefficients of latents and prediction in the clean image that a step predicts.
        noise: the dtype in which diffusers generates the noise of a step, or MODEL_TYPE; None: the step adds none.
    """

    timesteps: Numbers
    init_noise_sigma: float
    input_scales: Numbers
    updates: Numbers
    cleans: Numbers
    noise: tuple[torch.dtype | None, ...]

    @property
    def steps(self) -> int:
        """The number of UNet calls."""
        return len(self.timesteps)

    @classmethod
    def passing(cls, timesteps: torch.Tensor, init_noise_sigma: float) -> Self:
        """Make a plan whose updates pass on the prediction, for images whose scheduler takes each step itself.

        Args:
            timesteps: the timesteps of the scheduler.
            init_noise_sigma: the standard deviation of the scheduler's first latents.
        """
        steps = len(timesteps)
        updates = np.zeros((steps, 1, MEMORY), np.float32)
        updates[:, 0, PREDICTION] = 1
        return cls(
            timesteps=timesteps.numpy().astype(np.float32),
            init_noise_sigma=init_noise_sigma,
            input_scales=np.ones(steps, np.float32),
            updates=updates,
            cleans=np.zeros((steps, NOISE), np.float32),
            noise=(None,) * steps,
        )

    @property
    def slots(self) -> int:
        """The number of tensors that an image keeps between two steps, beside its latents."""
        return len(self.updates[0]) - 1


@functools.lru_cache(_KEPT)
def planned(own: Any, name: SchedulerName | None, steps: int, options: ScheduleOptions) -> StepPlan | None:
    """Return the plan of a request's schedule, from a cache; None where its steps are not linear.

    Args:
        own: the model's scheduler.
        name: the name of another scheduler, if the request sets one.
        steps: the steps of the request.
        options: the schedule options of the request.

    Raises:
        InvalidRequest: the scheduler does not have an option, or does not support this number of steps.
    """
    return plan_of(schedulers.fresh(own, name, steps, options))


def plan_of(scheduler: Any) -> StepPlan | None:
    """Return the plan of a scheduler whose timesteps are set; None: its steps are not linear.

    The probe uses the scheduler up: it cannot be used for an image afterwards.
    """
    if schedulers.clips(scheduler) or not schedulers.is_offered(scheduler):
        return None
    start = float(scheduler.init_noise_sigma)
    probe = _Probe(scheduler)
    try:
        found = [probe.step(index) for index in range(len(scheduler.timesteps))]
    except Exception:  # noqa: BLE001 - a step that fails for unit vectors may work for images, or raise a clear error there
        return None
    return _packed(found, scheduler.timesteps, start)


class _NoPlan(Exception):
    """A step cannot be expressed as numbers."""


@dataclass(frozen=True)
class _Found:
    """One step as the probe measured it: for each result its coefficients, then the result for the witness.

    Attributes:
        scale: the input of the UNet.
        latents: the next latents.
        clean: the clean image that the step predicts.
        memory: the tensors that the scheduler keeps after the step.
        noise: see StepPlan.
    """

    scale: Row
    latents: Row
    clean: Row
    memory: Sequence[Row]
    noise: torch.dtype | None

    def is_linear(self, witness: Row) -> bool:
        """Whether the coefficients explain the result for the witness, and lie in columns that an update reads."""
        rows = np.stack([self.scale, self.latents, self.clean, *self.memory])
        terms = rows[:, :-1] * witness
        differences = np.abs(rows[:, -1] - terms.sum(axis=1))
        complete = (differences <= _CLOSE * np.abs(terms).sum(axis=1)).all()
        stray = self.scale[PREDICTION:-1].any() or self.clean[NOISE:-1].any()
        return bool(complete) and not stray


class _Probe:
    """Steps a scheduler with unit vectors of shape (1, terms + 1); the last number is the witness."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._random = np.random.default_rng(0)

    def step(self, index: int) -> _Found:
        scheduler, timestep = self._scheduler, self._scheduler.timesteps[index]
        witness: Row = self._random.normal(0.0, _WITNESS_SPREAD, _TERMS)
        units = torch.from_numpy(np.column_stack([np.eye(_TERMS), witness])).split(1)
        for slot, (holder, key) in enumerate(self._memory()):
            holder[key] = units[MEMORY + slot].clone()  # some schedulers modify the kept tensors in place
        latents, prediction = units[LATENTS].clone(), units[PREDICTION].clone()
        scale = scheduler.scale_model_input(latents, timestep)
        with _UnitNoise(units[NOISE]) as noise:
            stepped = scheduler.step(prediction, timestep, latents, return_dict=False)
        clean = stepped[1] if len(stepped) > 1 else clean_latents.of(scheduler, index, latents, prediction)
        memory = [_row(holder[key]) for holder, key in self._memory()]
        found = _Found(_row(scale), _row(stepped[0]), _row(clean), memory, noise.drawn)
        if not found.is_linear(witness):
            raise _NoPlan("a step that is not linear")
        return found

    def _memory(self) -> list[tuple[Any, Any]]:
        """Find where the scheduler keeps tensors of an image: container and key, for attributes and list members."""
        attributes = vars(self._scheduler)
        lists = [each for each in attributes.values() if isinstance(each, list)]
        items = [(attributes, each) for each in attributes.items()]
        items += [(each, item) for each in lists for item in enumerate(each)]
        return [
            (holder, key)
            for holder, (key, value) in items
            if isinstance(value, torch.Tensor) and value.shape == (1, _TERMS + 1)
        ]


class _UnitNoise(TorchFunctionMode):  # type: ignore[misc]  # torch is read without types
    """A context in which `torch.randn` returns a unit vector on this thread.

    Attributes:
        drawn: the dtype that the scheduler requested; None: it requested no noise.
    """

    def __init__(self, unit: torch.Tensor) -> None:
        super().__init__()
        self._unit = unit
        self.drawn: torch.dtype | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.randn:
            return func(*args, **(kwargs or {}))
        if self.drawn is not None:
            raise _NoPlan("a second draw of noise in one step")
        self.drawn = kwargs["dtype"]
        return self._unit


def _row(result: torch.Tensor) -> Row:
    numbers: Row = result.double().numpy()[0]
    return numbers


def _packed(found: Sequence[_Found], timesteps: torch.Tensor, init_noise_sigma: float) -> StepPlan:
    kept = _kept(found)
    slots = max(len(each) for each in kept)
    updates = np.zeros((len(found), 1 + slots, MEMORY + slots), np.float32)
    for update, step, before, after in zip(updates, found, kept[:-1], kept[1:], strict=True):
        rows = np.stack([step.latents, *(step.memory[slot] for slot in after)])
        columns = [*range(MEMORY), *(MEMORY + slot for slot in before)]
        update[: len(rows), : len(columns)] = rows[:, columns]
    return StepPlan(
        timesteps=timesteps.numpy().astype(np.float32),
        init_noise_sigma=init_noise_sigma,
        input_scales=np.array([each.scale[LATENTS] for each in found], np.float32),
        updates=updates,
        cleans=np.array([each.clean[:NOISE] for each in found], np.float32),
        noise=tuple(each.noise for each in found),
    )


def _kept(found: Sequence[_Found]) -> list[list[int]]:
    """Return, before each step and after the last one, which kept tensors a later step still reads."""
    kept: list[list[int]] = [[]]
    for step in reversed(found):
        rows = np.stack([step.latents, *(step.memory[slot] for slot in kept[0])])
        kept.insert(0, [int(slot) for slot in np.flatnonzero(rows[:, MEMORY:-1].any(axis=0))])
    return kept
