# SPDX-License-Identifier: Apache-2.0
"""Chooses the image tasks of the next UNet call: tasks of one batch key share a call, and keys take turns.

Three rules decide, each in its own module:

- `lora_turn`: a set of LoRAs keeps its turn for a while, since a switch between sets is expensive.
- `Batcher`: of the eligible keys, the key with the smallest charge is next. Each call charges its key with the
  pixels that it computes, divided by the number of its images. So every image gets the same share of the device,
  and small images do not wait for a large one to finish. Keys of one set alternate at every step, which costs nothing.
- `fair_queue`: within a key, requests take turns by image.

No key starves. A waiting key is next once the other keys have a larger charge, at the latest when a turn ends. A new
key starts with the charge of the clock, which advances with each turn and with each key that leaves. Otherwise a key
that comes and goes would overtake the others forever. Between two of its steps, a started image waits for at most one
turn and three calls for each other image and each set of LoRAs in flight.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sd_runtime.engine.execution.fair_queue import FairQueue
from sd_runtime.engine.execution.lora_turn import TURN_SECONDS, LoraTurn
from sd_runtime.engine.image_task import BatchKey, ImageTask

_CALM_TICKS = 200  # calls within memory before a larger call is tried again


@dataclass
class BatchLimits:
    """The largest size of one UNet call.

    Attributes:
        pictures: the largest number of images, as configured.
        most: the largest number of rows times image pixels that memory allows.
        now: the current value of this limit; it shrinks when memory runs out and grows back later.
    """

    pictures: int
    most: int
    now: int = field(init=False)
    _calm: int = 0

    def __post_init__(self) -> None:
        self.now = self.most

    def shrink(self, failed: int) -> None:
        """Lower the limit, since a call of `failed` pixels ran out of memory."""
        self.now = max(1, min(self.now, failed) // 2)
        self._calm = 0

    def calm(self) -> None:
        """Count a successful call; after each `_CALM_TICKS` of them the limit doubles, up to `most`."""
        self._calm += 1
        if self.now < self.most and self._calm % _CALM_TICKS == 0:
            self.now = min(self.most, self.now * 2)


@dataclass
class _Group:
    joined: float
    charged: float
    members: FairQueue = field(default_factory=FairQueue)


class Batcher:
    """The image tasks that are not finished, grouped by batch key."""

    def __init__(
        self,
        switch_seconds: Callable[[], float] = lambda: 0.0,
        *,
        turn_seconds: float = TURN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a batcher without tasks.

        Args:
            switch_seconds: returns the seconds of the latest LoRA switch.
            turn_seconds: least length of a turn of a set of LoRAs; 0: sets alternate at every step.
            clock: returns monotonic seconds.
        """
        self._groups: dict[BatchKey, _Group] = {}
        self._turn = LoraTurn(turn_seconds, switch_seconds, clock)
        self._clock = 0.0  # the charge with which a new key starts

    def __len__(self) -> int:
        return sum(len(group.members) for group in self._groups.values())

    def add(self, task: ImageTask) -> None:
        """Add a task, which may join the next call of its key; a new key is next within its set of LoRAs."""
        group = self._groups.setdefault(task.kind, _Group(self._clock, self._clock))
        group.members.add(task)

    def drop(self, gone: Iterable[ImageTask]) -> None:
        """Remove tasks that are finished, failed or cancelled."""
        leaving = set(gone)
        for kind in {task.kind for task in leaving} & self._groups.keys():
            group = self._groups[kind]
            group.members.remove(leaving)
            if not group.members:
                # The clock advances by the average share: the charge that this key gained, divided by the number of keys.
                self._clock += (group.charged - group.joined) / len(self._groups)
                del self._groups[kind]

    def all(self) -> list[ImageTask]:
        """Return all image tasks."""
        return [task for group in self._groups.values() for task in group.members.all()]

    def next(self, budget: BatchLimits) -> Sequence[ImageTask]:
        """Return the image tasks of the next call, in the order of their turns; empty if there are none."""
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
        """Return how many images of the same key start before this one, if no others arrive."""
        group = self._groups.get(task.kind)
        return 0 if group is None else group.members.ahead(task)


def _head(members: Sequence[ImageTask], budget: BatchLimits) -> Sequence[ImageTask]:
    """Return as many of the first tasks as memory allows, at least one."""
    kind, pixels = members[0].kind, 0
    for count, task in enumerate(members):
        pixels += task.rows * kind.height * kind.width
        if pixels > budget.now and count > 0:
            return members[:count]
    return members
