# SPDX-License-Identifier: Apache-2.0
"""The readiness of the model deployment. Reading it never starts a replica of a model at zero replicas."""

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
_AWAITED_SECONDS = 0.25  # while requests wait for a replica to start
_ANSWER_SECONDS = 2.0
_NO_ANSWER = (TimeoutError, RayError, RayServeException)


def judge(replicas: Mapping[str, int], status: str, *, scale_to_zero: bool) -> Readiness:
    """Derive the readiness from Serve's status of the deployment.

    Args:
        replicas: number of replicas by Serve's state of a replica.
        status: Serve's status of the deployment.
        scale_to_zero: whether zero replicas is a valid state.
    """
    if replicas.get("RUNNING"):
        return Readiness(ready=True, phase="ready")
    if replicas.get("STARTING") or replicas.get("UPDATING"):
        return Readiness(ready=False, phase="loading")
    # While Serve stops the last replica (DOWNSCALING), the next request starts another one.
    if scale_to_zero and status in {"HEALTHY", "DOWNSCALING"}:
        return Readiness(ready=True, phase="scaled-to-zero")
    return Readiness(ready=False, phase="starting")


class ReadinessProbe:
    """Reads the states of replicas from Serve's controller.

    Results are cached, because unpacking one takes 15 ms of CPU time. If the controller does not answer, the probe calls a
    replica instead: when the head is lost, and the controller with it, replicas on workers serve until Ray stops them.

    Attributes:
        scale_to_zero: whether zero replicas is a valid state.
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
        """The readiness, from a cache if it is recent enough.

        Args:
            within_seconds: maximum age of the result. None means one second, or a quarter of a second while not ready.
        """
        async with self._lock:
            usual = _FRESH_SECONDS if self._last.ready else _AWAITED_SECONDS
            if time.monotonic() - self._read_at >= (within_seconds or usual):
                self._last = await self._ask_controller() or await self._ask_replica()
                self._read_at = time.monotonic()
        return self._last

    async def info(self) -> EngineInfo | None:
        """The device, data type and options of a running replica. The result is kept until no replica is running."""
        if (await self.read()).phase != "ready":
            self._info = None
        elif self._info is None:
            self._info = await self._engine_info()
        return self._info

    async def _ask_controller(self) -> Readiness | None:
        """The readiness from Serve's controller.

        The result is None if the controller does not answer or lists no deployment. It lists none while another version of
        the application is built, or after that build failed.
        """
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
        """The readiness from a call of a replica.

        With scale to zero the call would start a replica, so the last result stays valid.
        """
        if self.scale_to_zero:
            return self._last
        self._info = await self._engine_info()
        return (
            Readiness(ready=True, phase="ready") if self._info else Readiness(ready=False, phase="starting")
        )

    async def _engine_info(self) -> EngineInfo | None:
        """Call a replica for its engine info. Serve counts each call as load, so callers must keep the result."""
        with suppress(*_NO_ANSWER):
            async with asyncio.timeout(_ANSWER_SECONDS):
                info: EngineInfo = await self._model.info.remote()
                return info
        return None
