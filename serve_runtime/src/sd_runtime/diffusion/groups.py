# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: pictures of one kind share a UNet call, kinds take turns.

Each kind is charged the latent pixels it computes, divided by its pictures; the kind charged least is next. So
every picture gets the same share of the device, small ones do not wait for a large one to end, and none starves:
a kind that waits is next as soon as the others have been charged more than it. A new kind is charged by the clock,
which goes on with each turn, and with each kind that leaves: one that comes and goes must not overtake for ever.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sd_runtime.diffusion.drawing import Drawing, Kind

_CALM_TICKS = 200  # without running out of memory before more is tried again


@dataclass
class Budget:
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
    members: list[Drawing] = field(default_factory=list)


class Groups:
    """Pictures that are not finished, by kind and in order of arrival."""

    def __init__(self) -> None:
        self._groups: dict[Kind, _Group] = {}
        self._clock = 0.0  # what a kind that comes now is held to have been charged

    def __len__(self) -> int:
        return sum(len(group.members) for group in self._groups.values())

    def add(self, drawing: Drawing) -> None:
        """It may join the next call of its kind; a new kind is next."""
        group = self._groups.setdefault(drawing.kind, _Group(self._clock, self._clock))
        group.members.append(drawing)

    def drop(self, gone: Iterable[Drawing]) -> None:
        """Take out pictures that are finished, failed or not wanted."""
        leaving = set(gone)
        for kind in {drawing.kind for drawing in leaving} & self._groups.keys():
            group = self._groups[kind]
            group.members = [drawing for drawing in group.members if drawing not in leaving]
            if not group.members:
                # Its work is shared out: so much was everybody's turn meanwhile.
                self._clock += (group.charged - group.joined) / len(self._groups)
                del self._groups[kind]

    def all(self) -> list[Drawing]:
        """Every picture."""
        return [drawing for group in self._groups.values() for drawing in group.members]

    def next(self, budget: Budget) -> Sequence[Drawing]:
        """The pictures of the next call, the oldest first; empty if there are none."""
        if not self._groups:
            return ()
        kind, group = min(self._groups.items(), key=lambda item: item[1].charged)
        batch = _head(group.members, budget)
        self._clock = max(self._clock, group.charged)
        group.charged += sum(drawing.rows for drawing in batch) * kind.height * kind.width / len(batch)
        return batch

    def ahead(self, drawing: Drawing) -> int:
        """Pictures of its kind that wait for their first step and came before it."""
        group = self._groups.get(drawing.kind)
        if group is None or drawing.begun or drawing not in group.members:
            return 0
        return sum(not other.begun for other in group.members[: group.members.index(drawing)])


def _head(members: Sequence[Drawing], budget: Budget) -> Sequence[Drawing]:
    """As many of the oldest as the budget allows, one at least."""
    kind, pixels = members[0].kind, 0
    for count, drawing in enumerate(members[: budget.pictures]):
        pixels += drawing.rows * kind.height * kind.width
        if pixels > budget.now and count > 0:
            return members[:count]
    return members[: budget.pictures]
