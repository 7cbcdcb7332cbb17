# SPDX-License-Identifier: Apache-2.0
"""What the HTTP API needs of whoever draws: Ray's handle in the service (`serve_drawer`), a fake in tests."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol

from sd_runtime.config import Limits
from sd_runtime.engine.interface import EngineInfo, ImageRequest, Picture, Update
from sd_runtime.startup import StartReport


@dataclass(frozen=True)
class Readiness:
    """The state of the model deployment.

    Attributes:
        ready: a request would be answered: by a running replica, or after a wake-up from zero.
        phase: starting (no replica yet), loading (one is building its pipeline), ready or scaled-to-zero.
    """

    ready: bool
    phase: str


class QueueFull(Exception):
    """Every replica's queue is full; the caller knows when to come back."""


class Drawer(Protocol):
    """Draws pictures somewhere else; cancelling a call stops its work there.

    Both ways to draw raise what `sd_runtime.engine.interface.Engine` raises, QueueFull, or Unavailable with its HTTP status.
    """

    async def draw(self, request: ImageRequest, limits: Limits) -> list[Picture]:
        """All pictures of a request, in order, within the time limits."""

    def stream(self, request: ImageRequest, limits: Limits) -> AsyncGenerator[Update]:
        """The same as it comes into being."""

    async def readiness(self) -> Readiness:
        """Whether a request would be answered now; never wakes a model at zero."""

    async def info(self) -> EngineInfo | None:
        """What a running replica computes with; None while there is none."""

    async def starts(self) -> Mapping[str, StartReport]:
        """How replicas start or have started lately, by Serve's id of the replica; Unavailable where nobody tells."""
