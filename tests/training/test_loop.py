# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from sd_training.loop import Chance, Run
from sd_training.team import Team


class Line:
    """Learns y = 3x; fails at a step, as if it had been killed there."""

    name = "line"
    rate = 0.1

    def __init__(self, steps=60, dies_at=None):
        torch.manual_seed(0)
        self.steps, self.module, self._dies_at, self._taken = steps, nn.Linear(1, 1), dies_at, 0

    def loss(self, chance):
        self._taken += 1
        if self._taken == self._dies_at:
            raise KeyboardInterrupt
        x = torch.rand(8, 1, generator=chance.tensors) + chance.rng.random()
        return nn.functional.mse_loss(self.module(x), 3 * x)


def weights(stage):
    return [each.detach().clone() for each in stage.module.parameters()]


def test_it_learns(tmp_path, capsys):
    stage = Line(steps=600)
    Run(tmp_path, seed=1).train(stage)
    assert stage.module(torch.tensor([[2.0]])).item() == pytest.approx(6, abs=0.1)
    assert "line: step 600 of 600, loss " in capsys.readouterr().out


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    whole = Line()
    Run(tmp_path / "whole", seed=1).train(whole)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "cut", seed=1, save_seconds=0).train(Line(dies_at=30))
    rest = Line()
    Run(tmp_path / "cut", seed=1).train(rest)
    assert all(torch.equal(*pair) for pair in zip(weights(whole), weights(rest), strict=True))


def test_a_finished_stage_is_only_read(tmp_path):
    first, again = Line(), Line(dies_at=1)
    Run(tmp_path, seed=1).train(first)
    Run(tmp_path, seed=1).train(again)
    assert all(torch.equal(*pair) for pair in zip(weights(first), weights(again), strict=True))


def test_another_plan_is_refused_by_name(tmp_path):
    Run(tmp_path, seed=1).train(Line())
    with pytest.raises(
        ValueError, match=r"line\.pt holds .*'steps': 60.*, not .*'steps': 61.*: name another folder"
    ):
        Run(tmp_path, seed=1).train(Line(steps=61))


def test_averages_are_seen_on_save_and_training_goes_on_without_them(tmp_path):
    seen = []
    stage = Line()
    Run(tmp_path, seed=1, save_seconds=0).train(stage, on_save=lambda: seen.append(weights(stage)))
    assert len(seen) == 60
    assert all(torch.equal(*pair) for pair in zip(seen[-1], weights(stage), strict=True))


def test_chance_depends_on_its_name_alone():
    one, same, other = Chance.of(1, "a", 5), Chance.of(1, "a", 5), Chance.of(1, "a", 6)
    assert one.rng.random() == same.rng.random() != other.rng.random()
    numbers = [torch.rand(1, generator=each.tensors) for each in (one, same, other)]
    assert numbers[0] == numbers[1] != numbers[2]


def test_two_workers_take_the_steps_of_one():
    """Their parts of a batch are those of the one; only who computes them differs."""
    assert [*Team(0, 2).shards(), *Team(1, 2).shards()] == [*Team(0, 1).shards()]
