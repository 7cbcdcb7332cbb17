# SPDX-License-Identifier: Apache-2.0
"""The training loop that all stages share: seeded step by step, resumable after a kill, with progress and an ETA."""

import hashlib
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from sd_training.team import SHARDS, Team

_WARM_UP_STEPS = 50
_LEAST_RATE = 0.02  # of the peak
_AVERAGE = 0.999
_REPORT_SECONDS = 15
SAVE_SECONDS = 120.0
"""Seconds between two checkpoints."""


class Stage(Protocol):
    """One stage of the training.

    Attributes:
        name: the name of its checkpoint.
        steps: the number of steps.
        rate: the peak learning rate.
        module: the module to train; parameters that need no gradient do not change.
    """

    name: str
    steps: int
    rate: float
    module: nn.Module

    def loss(self, chance: "Chance") -> Tensor:
        """The loss of one batch, a scalar."""


@dataclass(frozen=True)
class Chance:
    """Random numbers that depend on their name alone, so a resumed run gets the same numbers.

    Attributes:
        rng: the generator for words and choices.
        tensors: the generator for tensors; it is on the CPU, so that a run on a GPU gets the same numbers.
    """

    rng: random.Random
    tensors: torch.Generator

    @classmethod
    def of(cls, *parts: object) -> "Chance":
        """Make the generators for a name."""
        digest = hashlib.sha256(repr(parts).encode()).digest()
        seed = int.from_bytes(digest[:6], "big")
        return cls(random.Random(seed), torch.Generator().manual_seed(seed))


class Progress:
    """Prints step, loss and ETA now and then."""

    def __init__(self, stage: Stage, begin: int) -> None:
        self._stage, self._begin = stage, begin
        self._began = self._told = time.monotonic()
        self._losses: list[float] = []

    def step(self, done: int, loss: float) -> None:
        """After each step, `done` in all."""
        self._losses.append(loss)
        now = time.monotonic()
        if now - self._told < _REPORT_SECONDS and done < self._stage.steps:
            return
        left = (now - self._began) / (done - self._begin) * (self._stage.steps - done)
        mean = sum(self._losses) / len(self._losses)
        print(
            f"{self._stage.name}: step {done} of {self._stage.steps}, loss {mean:.4f}, {left / 60:.1f} min left",
            flush=True,
        )
        self._told, self._losses = now, []


class Checkpoint:
    """The state of a stage: parameters, their averages and the optimizer, in memory and on disk.

    Attributes:
        done: steps taken so far.
    """

    def __init__(self, stage: Stage, work: Path, seed: int) -> None:
        self.done = 0
        self._stage, self._file = stage, work / f"{stage.name}.pt"
        self._plan = {"stage": stage.name, "steps": stage.steps, "seed": seed}
        self._parameters = [each for each in stage.module.parameters() if each.requires_grad]
        self._average = [each.detach().clone() for each in self._parameters]
        self._optimizer = torch.optim.AdamW(
            self._parameters, stage.rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
        )
        if self._file.exists():
            self._restore()

    def step(self, team: Team) -> float:
        """Take one step, and return the mean loss of this worker's part of the batch."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._stage.rate * _schedule(self.done, self._stage.steps)
        self._optimizer.zero_grad()
        losses: list[float] = []
        for shard in team.shards():
            loss = self._stage.loss(Chance.of(self._plan["seed"], self._stage.name, self.done, shard))
            (loss / SHARDS).backward()
            losses.append(loss.item())
        team.add_up(self._parameters)
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        decay = min(_AVERAGE, (1 + self.done) / (10 + self.done))
        torch._foreach_lerp_(self._average, [each.detach() for each in self._parameters], 1 - decay)
        self.done += 1
        return sum(losses) / len(losses)

    def save(self) -> None:
        """Write the checkpoint file atomically."""
        state = {
            "plan": self._plan,
            "done": self.done,
            "optimizer": self._optimizer.state_dict(),
            "parameters": [each.detach() for each in self._parameters],
            "average": self._average,
        }
        part = self._file.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._file)

    def take_average(self) -> None:
        """Copy the averages into the module."""
        _put(self._parameters, self._average)

    def with_average(self, act: Callable[[], None]) -> None:
        """Call a function while the averages are in the module."""
        kept = [each.detach().clone() for each in self._parameters]
        self.take_average()
        act()
        _put(self._parameters, kept)

    def _restore(self) -> None:
        state = torch.load(self._file, map_location=self._parameters[0].device, weights_only=True)
        if state["plan"] != self._plan:
            raise ValueError(
                f"{self._file} holds {state['plan']}, not {self._plan}: name another folder, or remove it"
            )
        self._optimizer.load_state_dict(state["optimizer"])
        _put(self._parameters, state["parameters"])
        _put(self._average, state["average"])
        self.done = int(state["done"])


@dataclass(frozen=True)
class Run:
    """The settings that all stages of a training share.

    Attributes:
        work: the folder of checkpoints.
        seed: the seed of the whole training.
        save_seconds: the seconds between two checkpoints.
        team: the workers.
    """

    work: Path
    seed: int
    save_seconds: float = SAVE_SECONDS
    team: Team = field(default_factory=Team)

    def train(self, stage: Stage, on_save: Callable[[], None] | None = None) -> None:
        """Train a stage to its end, from its checkpoint if there is one; then `module` holds the averages.

        Args:
            stage: the stage.
            on_save: called with the averages in `module` after each checkpoint.

        Raises:
            ValueError: the checkpoint has another seed or number of steps.
        """
        checkpoint = Checkpoint(stage, self.work, self.seed)
        progress, saved = Progress(stage, checkpoint.done), time.monotonic()
        while checkpoint.done < stage.steps:
            loss = checkpoint.step(self.team)
            if not self.team.leads:
                continue
            progress.step(checkpoint.done, loss)
            if checkpoint.done == stage.steps or time.monotonic() - saved >= self.save_seconds:
                checkpoint.save()
                saved = time.monotonic()
                if on_save:
                    checkpoint.with_average(on_save)
        checkpoint.take_average()


def _schedule(step: int, steps: int) -> float:
    """Return the learning rate as a share of the peak: a short warm-up, then a cosine decay to almost zero."""
    fall = 0.5 + 0.5 * math.cos(math.pi * step / steps)
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * max(_LEAST_RATE, fall)


def _put(targets: list[Tensor], values: list[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.detach().copy_(value)
