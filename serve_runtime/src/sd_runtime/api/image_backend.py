# SPDX-License-Identifier: Apache-2.0
"""The interface of the backend that generates images: `ServeBackend` in the service, a fake in tests."""

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
        ready: whether a request would be served, by a running replica or after a start from zero replicas.
        phase: starting (no replica yet), loading (a replica is loading its pipeline), ready or scaled-to-zero.
    """

    ready: bool
    phase: str


class QueueFull(Exception):
    """All request queues are full. The caller computes when the client may retry."""


class ImageBackend(Protocol):
    """A backend that generates images in another process. Cancelling a call stops its work there.

    `draw` and `stream` raise the errors of `sd_runtime.engine.interface.Engine`, QueueFull, or Unavailable with its HTTP
    status.
    """

    async def draw(self, request: ImageRequest, limits: Limits) -> list[Picture]:
        """Generate all images of a request within the time limits, and return them in order."""

    def stream(self, request: ImageRequest, limits: Limits) -> AsyncGenerator[Update]:
        """Generate the images of a request and yield each update."""

    async def readiness(self) -> Readiness:
        """Whether a request would be served now. The call never starts a replica of a model at zero replicas."""

    async def info(self) -> EngineInfo | None:
        """The device, data type and options of a running replica; None if no replica is running."""

    async def starts(self) -> Mapping[str, StartReport]:
        """The recent starts of replicas, by their Ray Serve replica id.

        Raises:
            Unavailable: Ray's head does not answer.
        """
