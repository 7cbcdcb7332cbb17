# SPDX-License-Identifier: Apache-2.0
"""Runs a service on this machine: starts Ray and applies the Serve config of the RayService, as KubeRay does.

Only `proxy_location` and `http_options` differ from the config in the RayService.
"""

import asyncio
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sd_operator import naming
from sd_operator.api import Resource
from sd_operator.builders.ray_variables import ray_variables
from sd_operator.builders.serve_config import serve_config
from sd_operator.errors import LocalRunFailed, RayUnavailable
from sd_operator.local import ray_process
from sd_operator.ray import dashboard as ray_dashboard
from sd_operator.ray.serve_state import FAILED
from sd_operator.ray.traceback import reason

T = TypeVar("T")

_POLL_SECONDS = 0.1
_CHECK_SECONDS = 2.0  # a status request takes Serve time that the start of the application needs
_START_SECONDS = 300.0
_REST_SECONDS = 120.0  # the first PUT starts Serve
_OK = 200

Phase = Callable[[str], None]
"""Called when a phase starts: `start Ray`, `apply the Serve config`, `start the application`, `load the model`."""


@dataclass(frozen=True)
class LocalService:
    """A running service on this machine."""

    url: str
    readiness: dict[str, Any]
    ray: ray_process.RayProcess

    async def watch(self) -> None:
        """Check Ray every second. The method never returns.

        Raises:
            LocalRunFailed: Ray has ended.
        """
        while True:
            self.ray.check()
            await asyncio.sleep(1)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that uses `serve`. Ctrl-C and SIGTERM cancel it, so that no process of Ray stays.

    Raises:
        CancelledError: the user interrupted the run, and all processes have stopped.
    """

    async def main() -> T:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    return asyncio.run(main())


@asynccontextmanager
async def serve(resource: Resource, port: int, phase: Phase) -> AsyncIterator[LocalService]:
    """Start the service, yield it when it is ready for requests, and stop all of its processes afterwards.

    Raises:
        LocalRunFailed: the service did not start. The message has the reason.
    """
    _check_runs_here(resource, port)
    phase("start Ray")
    ray = ray_process.start(
        gpus=_gpus(resource),
        cpus=max(os.cpu_count() or 1, resource.spec.replicas.max),
        environment=_environment(resource),
    )
    try:
        async with ray_dashboard.connect(ray.dashboard, ray.token, _REST_SECONDS) as dashboard:
            await _until_ray_answers(ray, dashboard)
            phase("apply the Serve config")
            try:
                await dashboard.apply(local_config(resource, port))
            except RayUnavailable as error:
                raise LocalRunFailed(
                    "Ray refused the Serve config; run with --verbose to see its answer", str(error)
                ) from error
            phase("start the application")
            url = f"http://127.0.0.1:{port}"
            readiness = await _until_ready(resource, ray, dashboard, url, phase)
            yield LocalService(url, readiness, ray)
    finally:
        await asyncio.shield(asyncio.to_thread(ray.stop))


def local_config(resource: Resource, port: int) -> dict[str, Any]:
    """The Serve config of the RayService, on one port of the loopback interface."""
    return serve_config(resource.spec) | {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": port},
    }


def _check_runs_here(resource: Resource, port: int) -> None:
    source = resource.spec.source()
    _check_is_here("spec.model.uri", source.uri or "", folder=True)
    for index, lora in enumerate(source.loras):
        _check_is_here(f"spec.model.loras[{index}].uri", lora.uri)
    if source.token_secret_ref is not None and "HF_TOKEN" not in os.environ:
        raise LocalRunFailed(
            "spec.model.tokenSecretRef: a local run cannot read Secrets: set HF_TOKEN in the environment"
        )
    if not ray_process.is_free(port):
        raise LocalRunFailed(f"port {port} of 127.0.0.1 is in use: choose another port with --port")


def _check_is_here(field: str, uri: str, *, folder: bool = False) -> None:
    path = Path(uri.removeprefix("file://"))
    if uri.startswith("pvc://"):
        raise LocalRunFailed(
            f"{field}: got {uri}: a local run cannot read a PersistentVolumeClaim: use file:///path"
        )
    if uri.startswith("file://") and not (path.is_dir() if folder else path.exists()):
        raise LocalRunFailed(f"{field}: got {uri}: this path does not exist on this machine")


def _gpus(resource: Resource) -> int:
    """Number of logical GPUs for Ray: enough for replicas.min, at least one."""
    spec = resource.spec
    share = spec.gpus_per_replica / spec.replicas_per_gpu
    return max(1, math.ceil(share * max(1, spec.replicas.min)))


def _environment(resource: Resource) -> dict[str, str]:
    """Variables of Ray and the replicas. By default Ray gives a replica one thread, because of its num_cpus."""
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))}
    # Every process of Serve imports this module. Workers that Ray starts in advance then import it early, in parallel.
    early = {"RAY_preload_python_modules": naming.IMPORT_PATH.partition(":")[0]}
    return {**threads, **early, **ray_variables(resource.spec)}


async def _until_ray_answers(ray: ray_process.RayProcess, dashboard: ray_dashboard.RayDashboard) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        ray.check()
        try:
            await dashboard.application()
        except RayUnavailable as error:
            if time.monotonic() > deadline:
                raise LocalRunFailed(
                    f"Ray did not answer within {_START_SECONDS:.0f} s", str(error)
                ) from error
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return


async def _until_ready(
    resource: Resource,
    ray: ray_process.RayProcess,
    dashboard: ray_dashboard.RayDashboard,
    url: str,
    phase: Phase,
) -> dict[str, Any]:
    """Poll the application and `/readyz` until the service is ready, and return the body of `/readyz`."""
    limit = resource.spec.limits.cold_start_timeout_seconds
    deadline = time.monotonic() + limit
    loading, next_check = False, time.monotonic()
    while True:
        ray.check()
        code, body = await ray_dashboard.get_json(f"{url}/readyz")
        if code == _OK:
            return body
        if not loading and body.get("phase") == "loading":
            phase("load the model")
            loading = True
        if time.monotonic() >= next_check:
            await _check(dashboard, deadline, limit)
            next_check = time.monotonic() + _CHECK_SECONDS
        await asyncio.sleep(_POLL_SECONDS)


async def _check(dashboard: ray_dashboard.RayDashboard, deadline: float, limit: int) -> None:
    """Raise LocalRunFailed if the application has failed, or if the deadline has passed. `limit` is in seconds."""
    state = await dashboard.application()
    if state.status in FAILED:
        raise LocalRunFailed(f"the application is {state.status}: {reason(state.words())}", state.words())
    if time.monotonic() > deadline:
        raise LocalRunFailed(
            f"the service was not ready within spec.limits.coldStartTimeoutSeconds ({limit} s); the application is {state.status}",
            state.words(),
        )
