# SPDX-License-Identifier: Apache-2.0
"""The order of image tasks of one batch key: requests take turns, so that a large request does not block others.

This is fair queuing. Image number `i` of a request waits for turn `now + 1 + i`. Here `now` is the latest turn that has
started when the request arrives. Within a turn the first images of requests come first. A new request therefore waits
only for the first images of earlier requests, however many images these have, and never overtakes such a first image.
Turns advance with each image that starts. So the later images of a large request start too, even if new requests
keep arriving. A started image is never put back.
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
        """The sort key: the turn, then the image's number; tasks with equal keys keep the order of arrival."""
        return self.turn, self.task.index


class FairQueue:
    """The image tasks of one batch key that are not finished."""

    def __init__(self) -> None:
        self._begun: list[ImageTask] = []
        self._waiting: list[_Waiting] = []  # sorted by `order`
        self._now = -1

    def __len__(self) -> int:
        return len(self._begun) + len(self._waiting)

    def add(self, task: ImageTask) -> None:
        """Add an image task, which waits for its turn; the images of one request are added in their order."""
        waiting = _Waiting(task, self._now + 1 + task.index)
        insort(self._waiting, waiting, key=lambda each: each.order)

    def remove(self, gone: set[ImageTask]) -> None:
        """Remove image tasks, whether started or waiting."""
        self._begun = [each for each in self._begun if each not in gone]
        self._waiting = [each for each in self._waiting if each.task not in gone]

    def all(self) -> list[ImageTask]:
        """Return all image tasks, in the order in which they start."""
        return [*self._begun, *(each.task for each in self._waiting)]

    def first(self, most: int) -> list[ImageTask]:
        """Return the tasks at the head of the queue, `most` at most; this call does not start them."""
        return [
            *self._begun[:most],
            *(each.task for each in islice(self._waiting, max(0, most - len(self._begun)))),
        ]

    def begin(self, batch: Sequence[ImageTask]) -> None:
        """Mark tasks that `first` returned as started."""
        new = len(set(batch) - set(self._begun))
        for each in self._waiting[:new]:
            self._now = max(self._now, each.turn)
            self._begun.append(each.task)
        del self._waiting[:new]

    def ahead(self, task: ImageTask) -> int:
        """Return how many waiting images start before this one, if no others arrive; 0 for a started image."""
        waiting = [each.task for each in self._waiting]
        return waiting.index(task) if task in waiting else 0
