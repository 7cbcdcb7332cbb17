# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: images of one batch key share a UNet call, and keys take turns.

Three rules decide, each in a place of its own:

- A set of LoRAs keeps its turn for a while, since a switch is dear: `lora_turn`.
- Of the keys that may be next, the one charged least is: `Batcher`. Each key is charged the latent pixels it computes,
  divided by its images. So every image gets the same share of the device, small ones do not wait for a large one to
  end, and keys of one set alternate at every step, which costs nothing.
- Within a key, requests take turns by image: `fair_queue`.

No key starves: one that waits is next, at the latest when a turn ends, once the others have been charged more than it. A
new key is charged by the clock, which goes on with each turn, and with each key that leaves: one that comes and goes must
not overtake for ever. An image that has begun waits between two of its steps for at most a turn and three calls for each
other image and each set of LoRAs in flight.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sd_runtime.engine.execution.fair_queue import FairQueue
from sd_runtime.engine.execution.lora_turn import TURN_SECONDS, LoraTurn
from sd_runtime.engine.image_task import BatchKey, ImageTask

_CALM_TICKS = 200  # without running out of memory before more is tried again


@dataclass
class BatchLimits:
    """How much one UNet call may hold.

    Attributes:
        pictures: as configured.
        most: rows times pixels of the picture that memory allows.
        now: the same after memory ran out; it grows back.
    """

    pictures: int
    most: int
    now: int = field(init=False)
    _calm: int = 0

    def __post_init__(self) -> None:
        self.now = self.most

    def shrink(self, failed: int) -> None:
        """A call of `failed` pixels ran out of memory."""
        self.now = max(1, min(self.now, failed) // 2)
        self._calm = 0

    def calm(self) -> None:
        """A call went well."""
        self._calm += 1
        if self.now < self.most and self._calm % _CALM_TICKS == 0:
            self.now = min(self.most, self.now * 2)


@dataclass
class _Group:
    joined: float
    charged: float
    members: FairQueue = field(default_factory=FairQueue)


class Batcher:
    """Images that are not finished, by batch key."""

    def __init__(
        self,
        switch_seconds: Callable[[], float] = lambda: 0.0,
        *,
        turn_seconds: float = TURN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold no image yet.

        Args:
            switch_seconds: what the latest switch of LoRAs took.
            turn_seconds: that a set of LoRAs keeps its turn at least; 0: sets alternate at every step.
            clock: monotonic seconds.
        """
        self._groups: dict[BatchKey, _Group] = {}
        self._turn = LoraTurn(turn_seconds, switch_seconds, clock)
        self._clock = 0.0  # what a key that comes now is held to have been charged

    def __len__(self) -> int:
        return sum(len(group.members) for group in self._groups.values())

    def add(self, task: ImageTask) -> None:
        """It may join the next call of its key; a new key is next within its set of LoRAs."""
        group = self._groups.setdefault(task.kind, _Group(self._clock, self._clock))
        group.members.add(task)

    def drop(self, gone: Iterable[ImageTask]) -> None:
        """Take out images that are finished, failed or cancelled."""
        leaving = set(gone)
        for kind in {task.kind for task in leaving} & self._groups.keys():
            group = self._groups[kind]
            group.members.remove(leaving)
            if not group.members:
                # Its work is shared out: so much was everybody's turn meanwhile.
                self._clock += (group.charged - group.joined) / len(self._groups)
                del self._groups[kind]

    def all(self) -> list[ImageTask]:
        """Every image."""
        return [task for group in self._groups.values() for task in group.members.all()]

    def next(self, budget: BatchLimits) -> Sequence[ImageTask]:
        """The images of the next call, in the order of their turns; empty if there are none."""
        if not self._groups:
            return ()
        kind = min(self._turn.eligible(self._groups), key=lambda each: self._groups[each].charged)
        self._turn.take(kind)
        group = self._groups[kind]
        batch = _head(group.members.first(budget.pictures), budget)
        group.members.begin(batch)
        self._clock = max(self._clock, group.charged)
        group.charged += sum(task.rows for task in batch) * kind.height * kind.width / len(batch)
        return batch

    def ahead(self, task: ImageTask) -> int:
        """Images of its key that begin before it unless others arrive."""
        group = self._groups.get(task.kind)
        return 0 if group is None else group.members.ahead(task)


def _head(members: Sequence[ImageTask], budget: BatchLimits) -> Sequence[ImageTask]:
    """As many of the first as memory allows, one at least."""
    kind, pixels = members[0].kind, 0
    for count, task in enumerate(members):
        pixels += task.rows * kind.height * kind.width
        if pixels > budget.now and count > 0:
            return members[:count]
    return members
