# SPDX-License-Identifier: Apache-2.0
"""The service of a resource on this machine: the Serve config of the RayService, applied as KubeRay does.

Only `http_options` differ from what the RayService carries.
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
_LOOK_SECONDS = 2.0  # to tell of its applications takes Serve time that their start needs
_START_SECONDS = 300.0
_REST_SECONDS = 120.0  # the first PUT starts Serve
_OK = 200

Phase = Callable[[str], None]
"""Told when a phase begins: `start Ray`, `apply`, `start the application`, `load the model`."""


@dataclass(frozen=True)
class LocalService:
    """A service that answers on this machine."""

    url: str
    readiness: dict[str, Any]
    ray: ray_process.RayProcess

    async def watch(self) -> None:
        """Return never while all is well.

        Raises:
            LocalRunFailed: Ray has ended.
        """
        while True:
            self.ray.check()
            await asyncio.sleep(1)


def run(work: Coroutine[Any, Any, T]) -> T:
    """What some work around `serve` comes to; Ctrl-C and SIGTERM cancel it, so that no process of Ray stays.

    Raises:
        CancelledError: it was interrupted, and has cleaned up.
    """

    async def main() -> T:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    return asyncio.run(main())


@asynccontextmanager
async def serve(resource: Resource, port: int, phase: Phase) -> AsyncIterator[LocalService]:
    """Bring the service up, hand it over once a picture can be made, and end every process of it afterwards.

    Raises:
        LocalRunFailed: it did not come up; the message says why.
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
                raise LocalRunFailed("Ray refuses the Serve config", str(error)) from error
            phase("start the application")
            url = f"http://127.0.0.1:{port}"
            readiness = await _until_ready(resource, ray, dashboard, url, phase)
            yield LocalService(url, readiness, ray)
    finally:
        await asyncio.shield(asyncio.to_thread(ray.stop))


def local_config(resource: Resource, port: int) -> dict[str, Any]:
    """The Serve config of the RayService, on one loopback port."""
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
            "spec.model.tokenSecretRef: there are no Secrets here; set HF_TOKEN in the environment"
        )
    if not ray_process.is_free(port):
        raise LocalRunFailed(f"port {port} of 127.0.0.1 is in use; choose another one with --port")


def _check_is_here(field: str, uri: str, *, folder: bool = False) -> None:
    path = Path(uri.removeprefix("file://"))
    if uri.startswith("pvc://"):
        raise LocalRunFailed(
            f"{field}: got {uri}: a PersistentVolumeClaim needs a cluster; use file:///path here"
        )
    if uri.startswith("file://") and not (path.is_dir() if folder else path.exists()):
        raise LocalRunFailed(f"{field}: got {uri}: there is no such folder on this machine")


def _gpus(resource: Resource) -> int:
    """Logical GPUs to offer: enough for the floor of replicas, one at least."""
    spec = resource.spec
    share = spec.gpus_per_replica / spec.replicas_per_gpu
    return max(1, math.ceil(share * max(1, spec.replicas.min)))


def _environment(resource: Resource) -> dict[str, str]:
    """Variables of Ray and the replicas; Ray alone would give a replica one thread, by its num_cpus."""
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))}
    # What every process of Serve imports anyway; so those that Ray starts beforehand do it while others start.
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
    """Poll application and `/readyz` until a picture can be made; return the body of `/readyz`."""
    limit = resource.spec.limits.cold_start_timeout_seconds
    deadline = time.monotonic() + limit
    loading, look_at = False, time.monotonic()
    while True:
        ray.check()
        code, body = await ray_dashboard.get_json(f"{url}/readyz")
        if code == _OK:
            return body
        if not loading and body.get("phase") == "loading":
            phase("load the model")
            loading = True
        if time.monotonic() >= look_at:
            await _check(dashboard, deadline, limit)
            look_at = time.monotonic() + _LOOK_SECONDS
        await asyncio.sleep(_POLL_SECONDS)


async def _check(dashboard: ray_dashboard.RayDashboard, deadline: float, limit: int) -> None:
    """Raise LocalRunFailed where the application has failed, or takes longer than its limit in seconds."""
    state = await dashboard.application()
    if state.status in FAILED:
        raise LocalRunFailed(f"the application is {state.status}: {reason(state.words())}", state.words())
    if time.monotonic() > deadline:
        raise LocalRunFailed(
            f"not ready within spec.limits.coldStartTimeoutSeconds ({limit} s); the application is {state.status}",
            state.words(),
        )
