# SPDX-License-Identifier: Apache-2.0
"""Table of contents of what kopf tells us: an event of a resource or of its child puts a key in the queue.

kopf is an event source here and no more: its state machine loses changes on errors, writes annotations and
finalizers, and never resyncs. Handlers neither raise nor wait for the API server.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import kopf

from sd_operator import naming
from sd_operator.api import GROUP, PLURAL, VERSION
from sd_operator.naming import Key
from sd_operator.work_queue import WorkQueue

CHILDREN = {
    ("ray.io", "v1", "rayservices"): naming.NAME_LABEL,
    ("ray.io", "v1", "rayclusters"): naming.NAME_LABEL,
    ("apps", "v1", "daemonsets"): naming.NAME_LABEL,
    ("apps", "v1", "deployments"): f"{naming.NAME_LABEL},{naming.MANAGED_BY_LABEL}",
    ("", "v1", "pods"): f"{naming.NAME_LABEL},{naming.RAY_POD_LABEL}",
}
"""What is watched beside the resource, and the label selector by which the API server filters it."""

SETTLE_SECONDS = 0.3
"""Children change in bursts (a pod alone a dozen times while it starts); one pass answers a burst."""


def registry(
    queue: WorkQueue, age_seconds: Callable[[], float], background: Callable[[], Any]
) -> kopf.OperatorRegistry:
    """The handlers of the operator.

    Args:
        queue: where keys are put.
        age_seconds: age of the last good resync, for the liveness probe.
        background: coroutine function of everything that runs beside the watches.
    """
    handlers = kopf.OperatorRegistry()
    tasks: list[asyncio.Task[Any]] = []

    @kopf.on.login(registry=handlers)
    async def login(**known: Any) -> kopf.ConnectionInfo | None:
        # Both read their file anew, so a rotated token is picked up.
        return kopf.login_with_service_account(**known) or kopf.login_with_kubeconfig(**known)

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)
        tasks.append(asyncio.create_task(background(), name="reconciling"))

    @kopf.on.cleanup(registry=handlers)
    async def stop(**_: Any) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @kopf.on.probe(registry=handlers, id="last_resync_seconds")
    async def last_resync(**_: Any) -> float:
        return round(age_seconds(), 1)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def service_changed(
        namespace: str | None, name: str, meta: Mapping[str, Any], status: Mapping[str, Any], **_: Any
    ) -> None:
        # Our own status writes come back as events, with nothing in them to act on.
        if status.get("observedGeneration") != meta.get("generation"):
            queue.add(Key(namespace or "", name))

    async def child_changed(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        queue.add_later(Key(namespace or "", labels[naming.NAME_LABEL]), SETTLE_SECONDS)

    for group, version, plural in CHILDREN:
        watched = kopf.on.event(
            group, version, plural, labels={naming.NAME_LABEL: kopf.PRESENT}, registry=handlers
        )
        watched(child_changed)
    return handlers


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.posting.enabled = False
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _EndlessBackoff()
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1.0
    for (group, _, plural), selector in CHILDREN.items():
        settings.watching.label_selectors[f"{plural}.{group}" if group else plural] = selector


class _EndlessBackoff:
    """Pauses between tries that never run out; kopf iterates anew for each request.

    A finite list ends the process when an API server is away for longer than its sum.
    """

    def __iter__(self) -> Iterator[float]:
        pause = 1.0
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
            pause = min(30.0, pause * 2)
