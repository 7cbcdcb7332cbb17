# SPDX-License-Identifier: Apache-2.0
"""Processes that train together.

On a CPU two processes with one thread each are faster than one with two: they synchronise only once per step. Every batch
has `SHARDS` parts with separate random numbers, so the number of workers changes no result.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing

SHARDS = 2


@dataclass(frozen=True)
class Team:
    """The team as one worker sees it.

    Attributes:
        rank: the rank of the worker; worker 0 saves and prints.
        size: the number of workers, 1 to SHARDS.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this worker saves and prints."""
        return self.rank == 0

    def shards(self) -> range:
        """The parts of a batch that belong to this worker."""
        return range(self.rank, SHARDS, self.size)

    def add_up(self, parameters: list[Tensor]) -> None:
        """Replace each worker's gradients by the sum over all of them."""
        if self.size == 1:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        together = torch.cat([each.flatten() for each in gradients])
        distributed.all_reduce(together)
        parts = together.split([each.numel() for each in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


@contextmanager
def of(size: int, work: Callable[[Team], object]) -> Iterator[Team]:
    """Start a team with this process as the leader; the other members run `work` beside it.

    If the leader is killed, the members fail at their next step and end too.
    """
    threads = max(1, (os.cpu_count() or 1) // size)
    torch.set_num_threads(threads)
    if size == 1:
        yield Team()
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        members = [
            multiprocessing.get_context("spawn").Process(
                target=_member, args=(Team(rank, size), meeting, threads, work), daemon=True
            )
            for rank in range(1, size)
        ]
        for member in members:
            member.start()
        _join(Team(0, size), meeting)
        try:
            yield Team(0, size)
        finally:
            distributed.destroy_process_group()


def _join(team: Team, meeting: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=team.rank, world_size=team.size
    )


def _member(team: Team, meeting: Path, threads: int, work: Callable[[Team], object]) -> None:
    torch.set_num_threads(threads)
    _join(team, meeting)
    work(team)
    distributed.destroy_process_group()
