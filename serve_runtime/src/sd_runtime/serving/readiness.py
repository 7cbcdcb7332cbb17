# SPDX-License-Identifier: Apache-2.0
"""Whether a picture can be made now, asked without waking a model at zero."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from sd_runtime.api.image_backend import Readiness
from sd_runtime.engine.interface import EngineInfo

_MODEL = "model"
_FRESH_SECONDS = 1.0
_AWAITED_SECONDS = 0.25  # while someone waits for a start to end
_ANSWER_SECONDS = 2.0
_NO_ANSWER = (TimeoutError, RayError, RayServeException)


def judge(replicas: Mapping[str, int], status: str, *, scale_to_zero: bool) -> Readiness:
    """The state behind what Serve says of the deployment.

    Args:
        replicas: number of replicas by Serve's state of a replica.
        status: Serve's status of the deployment.
        scale_to_zero: whether having no replica is as it should be.
    """
    if replicas.get("RUNNING"):
        return Readiness(ready=True, phase="ready")
    if replicas.get("STARTING") or replicas.get("UPDATING"):
        return Readiness(ready=False, phase="loading")
    # Downscaling: the last replica is about to be gone, and the next request wakes another one.
    if scale_to_zero and status in {"HEALTHY", "DOWNSCALING"}:
        return Readiness(ready=True, phase="scaled-to-zero")
    return Readiness(ready=False, phase="starting")


class ReadinessProbe:
    """Reads replica states from Serve's controller, seldom: an answer of it takes 15 ms of CPU to unpack.

    Where it does not answer, a replica is asked: without a head, and so without a controller, replicas on workers serve on
    until Ray ends those.

    Attributes:
        scale_to_zero: whether having no replica is as it should be.
    """

    def __init__(self, model: DeploymentHandle) -> None:
        self._model = model
        self.scale_to_zero = False
        self._application = serve.get_replica_context().app_name
        self._last = Readiness(ready=False, phase="starting")
        self._read_at = -_FRESH_SECONDS
        self._info: EngineInfo | None = None
        self._lock = asyncio.Lock()

    async def read(self, within_seconds: float | None = None) -> Readiness:
        """The state, not older than that; None: than a second, or a quarter of one while it is not ready."""
        async with self._lock:
            usual = _FRESH_SECONDS if self._last.ready else _AWAITED_SECONDS
            if time.monotonic() - self._read_at >= (within_seconds or usual):
                self._last = await self._ask_controller() or await self._ask_replica()
                self._read_at = time.monotonic()
        return self._last

    async def info(self) -> EngineInfo | None:
        """What a running replica computes with; asked once, until there is none any more."""
        if (await self.read()).phase != "ready":
            self._info = None
        elif self._info is None:
            self._info = await self._engine_info()
        return self._info

    async def _ask_controller(self) -> Readiness | None:
        """The state; None without an answer, or where that names no deployment: another version is built, or could not be."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                status = await asyncio.to_thread(serve.status)
        except _NO_ANSWER:
            return None
        application = status.applications.get(self._application)
        if application is None:
            return self._last
        if not application.deployments:
            return None
        deployment = application.deployments.get(_MODEL)
        if deployment is None:
            return Readiness(ready=False, phase="starting")
        return judge(deployment.replica_states, deployment.status, scale_to_zero=self.scale_to_zero)

    async def _ask_replica(self) -> Readiness:
        """Whether a replica of this version still answers; at a floor of zero the question would wake one, so the last state stands."""
        if self.scale_to_zero:
            return self._last
        self._info = await self._engine_info()
        return (
            Readiness(ready=True, phase="ready") if self._info else Readiness(ready=False, phase="starting")
        )

    async def _engine_info(self) -> EngineInfo | None:
        """What a replica says, asked once per wake-up: Serve takes each call as a reason to keep a replica."""
        with suppress(*_NO_ANSWER):
            async with asyncio.timeout(_ANSWER_SECONDS):
                info: EngineInfo = await self._model.info.remote()
                return info
        return None
