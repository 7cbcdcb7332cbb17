# SPDX-License-Identifier: Apache-2.0
"""The image backend on Ray Serve: it calls the `model` deployment, with time limits and errors for clients."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from ray.exceptions import RayActorError, RayError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle

from sd_runtime.api.errors import Unavailable
from sd_runtime.api.image_backend import QueueFull, Readiness
from sd_runtime.config import Limits, LiveConfig
from sd_runtime.engine.interface import EngineInfo, ImageRequest, Picture, Update
from sd_runtime.errors import RuntimeFailure
from sd_runtime.serving import startup_store
from sd_runtime.serving.readiness import ReadinessProbe
from sd_runtime.startup import StartReport

T = TypeVar("T")

_LOST = (RayActorError, ReplicaUnavailableError, RequestCancelledError, TaskCancelledError)
_HEAD_SECONDS = 2.0
_LOOK_SECONDS = 5.0
_NOT_SERVED = (BackPressureError, DeploymentUnavailableError, TimeoutError, RayTaskError, *_LOST)


class ServeBackend:
    """The implementation of `sd_runtime.api.image_backend.Drawer` with a Ray Serve handle."""

    def __init__(self, model: DeploymentHandle) -> None:
        self._model = model
        self._streaming = model.options(stream=True)
        self._probe = ReadinessProbe(model)

    def configure(self, live: LiveConfig) -> None:
        """Apply whether zero replicas is a valid state."""
        self._probe.scale_to_zero = live.scale_to_zero

    async def readiness(self) -> Readiness:
        """Whether a request would be served now."""
        return await self._probe.read()

    async def info(self) -> EngineInfo | None:
        """The device, data type and options of a running replica; None if no replica is running."""
        return await self._probe.info()

    async def starts(self) -> Mapping[str, StartReport]:
        """The recent starts of replicas, by their Ray Serve replica id."""
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                return await asyncio.to_thread(startup_store.published)
        except (TimeoutError, RayError, RuntimeError, ConnectionError) as error:
            raise Unavailable(503, "Ray's head does not answer; retry in 5 s", retry_after=5) from error

    async def draw(self, request: ImageRequest, limits: Limits) -> list[Picture]:
        """Generate all images of a request on a replica. If no replica is running, wait for a cold start."""
        patience = _Deadline(self._probe, limits)
        call = self._model.generate.remote(request)
        try:
            await patience.begin()  # the replica works during this check
            pictures: list[Picture] = await patience.wait_for(call)
        except BaseException as error:
            _cancel(call)
            if isinstance(error, _NOT_SERVED):
                raise await self._meaning(error, patience.seconds) from error
            raise
        return pictures

    async def stream(self, request: ImageRequest, limits: Limits) -> AsyncGenerator[Update]:
        """Generate the images of a request on a replica and yield each update."""
        patience = _Deadline(self._probe, limits)
        updates = self._streaming.stream.remote(request)
        try:
            await patience.begin()  # the replica works during this check
            # The time limit interrupts only the wait for an update, not the caller between two updates.
            while (update := await patience.wait_for(anext(updates, None))) is not None:
                yield update
        except BaseException as error:
            _cancel(updates)
            if isinstance(error, _NOT_SERVED):
                raise await self._meaning(error, patience.seconds) from error
            raise

    async def _meaning(self, error: Exception, patience: int) -> Exception:
        if isinstance(error, BackPressureError):
            return QueueFull()
        if isinstance(error, RayTaskError):
            return error.cause if isinstance(error.cause, RuntimeFailure) else _Unforeseen(error)
        if isinstance(error, DeploymentUnavailableError):
            return Unavailable(503, "the model failed to start; retry in 30 s", retry_after=30)
        if isinstance(error, _LOST):
            return Unavailable(503, "the replica stopped before it finished; retry in 1 s", retry_after=1)
        if (await self._probe.read()).phase != "ready":
            return Unavailable(
                503, f"no replica was ready within {patience} s; retry in 30 s", retry_after=30
            )
        return Unavailable(504, f"the request did not finish within {patience} s (limits.timeoutSeconds)")


class _Deadline:
    """The deadline of a request. It is extended once by the cold-start timeout if no replica is running.

    No replica may be running at the start of the request or later. In the second case its replica was lost or replaced,
    and Ray passes the request to the next one.

    Attributes:
        seconds: time limit from the start of the request.
    """

    def __init__(self, probe: ReadinessProbe, limits: Limits) -> None:
        self._probe = probe
        self._cold_start = limits.cold_start_timeout_seconds
        self._began = asyncio.get_running_loop().time()
        self.seconds = limits.timeout_seconds

    async def begin(self) -> None:
        """Extend the deadline if no replica was running recently. `wait_for` repeats this check during a long wait."""
        await self._grow(_LOOK_SECONDS)

    async def wait_for(self, awaitable: Awaitable[T]) -> T:
        """Wait for a result until the deadline.

        Raises:
            TimeoutError: the deadline has passed.
        """
        waiting = asyncio.ensure_future(awaitable)
        waiting.add_done_callback(_look_at)
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=max(0.0, min(self._left(), _LOOK_SECONDS)))
                if not waiting.done() and not await self._grow() and self._left() <= 0:
                    raise TimeoutError
            return waiting.result()
        finally:
            waiting.cancel()

    def _left(self) -> float:
        return self._began + self.seconds - asyncio.get_running_loop().time()

    async def _grow(self, within_seconds: float | None = None) -> bool:
        """Add the cold-start timeout once, if no replica is running. The state may be `within_seconds` old."""
        if self._cold_start == 0 or (await self._probe.read(within_seconds)).phase == "ready":
            return False
        self.seconds += self._cold_start
        self._cold_start = 0
        return True


def _look_at(waiting: asyncio.Future[Any]) -> None:
    """Retrieve an error that arrived after the wait. Otherwise asyncio logs it, and the text may contain the prompt."""
    if not waiting.cancelled():
        waiting.exception()


class _Unforeseen(Exception):
    """A bug in the replica. The message does not contain Ray's text, which may contain a prompt."""

    def __init__(self, error: RayTaskError) -> None:
        super().__init__(type(error.cause).__name__)


def _cancel(call: Any) -> None:
    """Cancel a call that may still run. A call that no replica accepted raises its known failure again; it is ignored."""
    with suppress(*_NOT_SERVED):
        call.cancel()
