# SPDX-License-Identifier: Apache-2.0
"""The order of images that may share a UNet call: requests take turns, so that a large one does not lock out others.

This is fair queuing. Image number `i` of a request waits for turn `now + 1 + i`, where `now` is the latest turn that
has begun when the request arrives; within a turn the first images of requests come first. A new request therefore waits
for the first images of earlier ones, however many images these have. It never overtakes such a first image. Since turns go
on with each image that begins, requests that keep coming let the later images of a large one begin, too. Images that have
begun are never put back.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from sd_runtime.engine.image_task import ImageTask


@dataclass(frozen=True)
class _Waiting:
    task: ImageTask
    turn: int

    @property
    def order(self) -> tuple[int, int]:
        """By turn, then by number within the request; equal ones keep the order of their arrival."""
        return self.turn, self.task.index


class FairQueue:
    """Images of one batch key that are not finished."""

    def __init__(self) -> None:
        self._begun: list[ImageTask] = []
        self._waiting: list[_Waiting] = []  # sorted by `order`
        self._now = -1

    def __len__(self) -> int:
        return len(self._begun) + len(self._waiting)

    def add(self, task: ImageTask) -> None:
        """Let an image wait for its turn; the images of one request are added in their order."""
        waiting = _Waiting(task, self._now + 1 + task.index)
        insort(self._waiting, waiting, key=lambda each: each.order)

    def remove(self, gone: set[ImageTask]) -> None:
        """Take out images, wherever they are."""
        self._begun = [each for each in self._begun if each not in gone]
        self._waiting = [each for each in self._waiting if each.task not in gone]

    def all(self) -> list[ImageTask]:
        """Every image, in the order in which they begin."""
        return [*self._begun, *(each.task for each in self._waiting)]

    def first(self, most: int) -> list[ImageTask]:
        """The images at the head, `most` at most; none of them begins by this."""
        return [
            *self._begun[:most],
            *(each.task for each in islice(self._waiting, max(0, most - len(self._begun)))),
        ]

    def begin(self, batch: Sequence[ImageTask]) -> None:
        """Count images that `first` gave as begun."""
        new = len(set(batch) - set(self._begun))
        for each in self._waiting[:new]:
            self._now = max(self._now, each.turn)
            self._begun.append(each.task)
        del self._waiting[:new]

    def ahead(self, task: ImageTask) -> int:
        """Images that begin before this one unless others arrive; 0 for one that does not wait."""
        waiting = [each.task for each in self._waiting]
        return waiting.index(task) if task in waiting else 0
