# SPDX-License-Identifier: Apache-2.0
"""The interface through which the engine reports measurements. `engine_metrics` exports them; tests count them."""

from typing import Literal, Protocol

Phase = Literal["queue", "encode", "denoise", "decode", "file"]
Outcome = Literal["drawn", "cancelled", "failed", "withheld"]


class Observer(Protocol):
    """A receiver of measurements. The engine's threads call it, so each method must be quick and must not raise."""

    def load(self, waiting: int, running: int) -> None:
        """Report the images that wait for their first step, and those between their first and last step."""

    def step(self, pictures: int, rows: int, seconds: float) -> None:
        """Report one UNet call, with the images and rows in it."""

    def phase(self, phase: Phase, seconds: float) -> None:
        """Report that an image, or the texts of several images, went through a phase."""

    def outcome(self, outcome: Outcome) -> None:
        """Report the outcome of an image."""

    def texts(self, cached: int, encoded: int) -> None:
        """Report the texts whose encoding was cached, and those that had to be encoded."""

    def memory(self, used: int) -> None:
        """Report the bytes of device memory in use."""

    def network_call(self, compiled: bool, ready: int) -> None:
        """Report a call of a network that `compile` applies to.

        Args:
            compiled: whether compiled code ran.
            ready: combinations of shapes that have compiled code.
        """


class Silent:
    """An observer that ignores all measurements."""

    def load(self, waiting: int, running: int) -> None:
        """Do nothing."""

    def step(self, pictures: int, rows: int, seconds: float) -> None:
        """Do nothing."""

    def phase(self, phase: Phase, seconds: float) -> None:
        """Do nothing."""

    def outcome(self, outcome: Outcome) -> None:
        """Do nothing."""

    def texts(self, cached: int, encoded: int) -> None:
        """Do nothing."""

    def memory(self, used: int) -> None:
        """Do nothing."""

    def network_call(self, compiled: bool, ready: int) -> None:
        """Do nothing."""
