# SPDX-License-Identifier: Apache-2.0
"""What the engine tells whoever measures it; `metrics` passes it on to Ray, tests count it."""

from typing import Literal, Protocol

Phase = Literal["queue", "encode", "denoise", "decode", "file"]
Outcome = Literal["drawn", "cancelled", "failed", "withheld"]


class Observer(Protocol):
    """Called from the engine's threads; must be quick and must not raise."""

    def load(self, waiting: int, running: int) -> None:
        """Pictures that wait for their first step, and pictures between first step and last."""

    def step(self, pictures: int, rows: int, seconds: float) -> None:
        """One UNet call: pictures and rows in it."""

    def phase(self, phase: Phase, seconds: float) -> None:
        """A picture, or the texts of some, went through a phase."""

    def outcome(self, outcome: Outcome) -> None:
        """What became of a picture."""

    def texts(self, cached: int, encoded: int) -> None:
        """Texts whose encoding was there, and texts that had to be encoded."""

    def memory(self, used: int) -> None:
        """Bytes of device memory in use."""

    def network_call(self, compiled: bool, ready: int) -> None:
        """A call of a network that is to be compiled: whether it ran so, and combinations of shapes that can."""


class Silent:
    """An observer that looks away."""

    def load(self, waiting: int, running: int) -> None:
        """Nothing."""

    def step(self, pictures: int, rows: int, seconds: float) -> None:
        """Nothing."""

    def phase(self, phase: Phase, seconds: float) -> None:
        """Nothing."""

    def outcome(self, outcome: Outcome) -> None:
        """Nothing."""

    def texts(self, cached: int, encoded: int) -> None:
        """Nothing."""

    def memory(self, used: int) -> None:
        """Nothing."""

    def network_call(self, compiled: bool, ready: int) -> None:
        """Nothing."""
