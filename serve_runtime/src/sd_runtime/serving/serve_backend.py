# SPDX-License-Identifier: Apache-2.0
"""Drawing by the `model` deployment: Ray's handle, its time limits, and what its errors mean to a client."""

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


class ServeDrawer:
    """See `sd_runtime.api.image_backend.Drawer`."""

    def __init__(self, model: DeploymentHandle) -> None:
        self._model = model
        self._streaming = model.options(stream=True)
        self._probe = ReadinessProbe(model)

    def configure(self, live: LiveConfig) -> None:
        """Take over whether having no replica is as it should be."""
        self._probe.scale_to_zero = live.scale_to_zero

    async def readiness(self) -> Readiness:
        """Whether a request would be answered now."""
        return await self._probe.read()

    async def info(self) -> EngineInfo | None:
        """What a running replica computes with."""
        return await self._probe.info()

    async def starts(self) -> Mapping[str, StartReport]:
        """How replicas start or have started lately."""
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                return await asyncio.to_thread(startup_store.told)
        except (TimeoutError, RayError, RuntimeError, ConnectionError) as error:
            raise Unavailable(503, "Ray's head does not answer; retry in 5 s", retry_after=5) from error

    async def draw(self, request: ImageRequest, limits: Limits) -> list[Picture]:
        """Have a replica draw; a request that finds none waits for a cold start."""
        patience = _Patience(self._probe, limits)
        call = self._model.generate.remote(request)
        try:
            await patience.begin()  # while the replica draws
            pictures: list[Picture] = await patience.wait_for(call)
        except BaseException as error:
            _cancel(call)
            if isinstance(error, _NOT_SERVED):
                raise await self._meaning(error, patience.seconds) from error
            raise
        return pictures

    async def stream(self, request: ImageRequest, limits: Limits) -> AsyncGenerator[Update]:
        """The same, update by update."""
        patience = _Patience(self._probe, limits)
        updates = self._streaming.stream.remote(request)
        try:
            await patience.begin()  # while the replica draws
            # Around each wait: the reader's time between two updates is not ours to interrupt.
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


class _Patience:
    """How long a request may take: the time limit, and a cold start more once it finds no replica.

    It may find none at its beginning, or later: the one it waited for was lost or is replaced then, and Ray gives it to
    the next one.

    Attributes:
        seconds: from its beginning.
    """

    def __init__(self, probe: ReadinessProbe, limits: Limits) -> None:
        self._probe = probe
        self._cold_start = limits.cold_start_timeout_seconds
        self._began = asyncio.get_running_loop().time()
        self.seconds = limits.timeout_seconds

    async def begin(self) -> None:
        """See whether there was a replica lately; while it takes long, that is looked at again."""
        await self._grow(_LOOK_SECONDS)

    async def wait_for(self, awaitable: Awaitable[T]) -> T:
        """What it comes to.

        Raises:
            TimeoutError: not within the time.
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
        """Add the time of a cold start, once, where there is no replica, or was none these seconds ago."""
        if self._cold_start == 0 or (await self._probe.read(within_seconds)).phase == "ready":
            return False
        self.seconds += self._cold_start
        self._cold_start = 0
        return True


def _look_at(waiting: asyncio.Future[Any]) -> None:
    """Take note of an error that came when nobody waited any more, or asyncio writes it to the log, prompt and all."""
    if not waiting.cancelled():
        waiting.exception()


class _Unforeseen(Exception):
    """A bug in the replica: Ray's text, which may hold a prompt, stays out of the message."""

    def __init__(self, error: RayTaskError) -> None:
        super().__init__(type(error.cause).__name__)


def _cancel(call: Any) -> None:
    """Stop a call that may still run. One that no replica took raises its failure again here; it is known by then."""
    with suppress(*_NOT_SERVED):
        call.cancel()
