# SPDX-License-Identifier: Apache-2.0
"""Drawing by the `model` deployment: Ray's handle, its time limits, and what its errors mean to a client."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle

from sd_runtime.config import Limits, LiveConfig
from sd_runtime.drawer import QueueFull, Readiness
from sd_runtime.engine import EngineInfo, ImageRequest, Picture, Update
from sd_runtime.errors import RuntimeFailure
from sd_runtime.http_errors import Unavailable
from sd_runtime.readiness import ReadinessProbe

_LOST = (RayActorError, ReplicaUnavailableError, RequestCancelledError, TaskCancelledError)
_NOT_SERVED = (BackPressureError, DeploymentUnavailableError, TimeoutError, RayTaskError, *_LOST)


class ServeDrawer:
    """See `sd_runtime.drawer.Drawer`."""

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

    async def draw(self, request: ImageRequest, limits: Limits) -> list[Picture]:
        """Have a replica draw; a request that finds none waits for a cold start."""
        call, patience = self._model.generate.remote(request), 0
        try:
            patience = await self._patience(limits)  # while the replica draws
            async with asyncio.timeout(patience):
                pictures: list[Picture] = await call
        except BaseException as error:
            _cancel(call)
            if isinstance(error, _NOT_SERVED):
                raise await self._meaning(error, patience) from error
            raise
        return pictures

    async def stream(self, request: ImageRequest, limits: Limits) -> AsyncGenerator[Update]:
        """The same, update by update."""
        updates, patience = self._streaming.stream.remote(request), 0
        try:
            patience = await self._patience(limits)  # while the replica draws
            deadline = asyncio.get_running_loop().time() + patience
            while True:
                # Around each wait: the reader's time between two updates is not ours to interrupt.
                async with asyncio.timeout_at(deadline):
                    update: Update | None = await anext(updates, None)
                if update is None:
                    return
                yield update
        except BaseException as error:
            _cancel(updates)
            if isinstance(error, _NOT_SERVED):
                raise await self._meaning(error, patience) from error
            raise

    async def _patience(self, limits: Limits) -> int:
        waits_for_start = (await self._probe.read()).phase != "ready"
        return limits.timeout_seconds + (limits.cold_start_timeout_seconds if waits_for_start else 0)

    async def _meaning(self, error: Exception, patience: int) -> Exception:
        if isinstance(error, BackPressureError):
            return QueueFull()
        if isinstance(error, RayTaskError):
            return error.cause if isinstance(error.cause, RuntimeFailure) else _Unforeseen(error)
        if isinstance(error, DeploymentUnavailableError):
            return Unavailable(503, "the model failed to start", retry_after=30)
        if isinstance(error, _LOST):
            return Unavailable(503, "the replica was lost; send the request again", retry_after=1)
        if (await self._probe.read()).phase != "ready":
            return Unavailable(503, f"no replica became ready within {patience} s", retry_after=30)
        return Unavailable(504, f"not done within {patience} s (limits.timeoutSeconds)")


class _Unforeseen(Exception):
    """A bug in the replica: Ray's text, which may hold a prompt, stays out of the message."""

    def __init__(self, error: RayTaskError) -> None:
        super().__init__(type(error.cause).__name__)


def _cancel(call: Any) -> None:
    """Stop a call that may still run. One that no replica took raises its failure again here; it is known by then."""
    with suppress(*_NOT_SERVED):
        call.cancel()
