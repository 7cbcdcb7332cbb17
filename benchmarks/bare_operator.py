# SPDX-License-Identifier: Apache-2.0
"""A minimal operator for comparison: kopf's events, one queue, server-side apply of the RayService, no status.

    KUBECONFIG=... .venv/bin/python benchmarks/bare_operator.py

This operator repairs, reports and retries nothing. The difference that `benchmarks/operator_load.py` measures is the cost
of these functions in the real operator.
"""

import asyncio
import logging
from typing import Any

import kopf

from sd_operator.api import GROUP, PLURAL, VERSION, parse
from sd_operator.builders.ray_service import ray_service
from sd_operator.kube import Cluster, connect
from sd_operator.settings import Settings

Json = dict[str, Any]
WORKERS = 4


async def operate() -> None:
    """Watch services and apply their RayServices, until a signal."""
    settings, seen = Settings(), asyncio.Queue[Json]()
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**known: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**known)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def changed(body: kopf.Body, **_: Any) -> None:
        seen.put_nowait(dict(body))

    async with connect(settings.request_timeout_seconds) as cluster:
        workers = [asyncio.create_task(work(cluster, seen, settings)) for _ in range(WORKERS)]
        await kopf.operator(registry=handlers, standalone=True, clusterwide=True)
        for worker in workers:
            worker.cancel()


async def work(cluster: Cluster, seen: asyncio.Queue[Json], settings: Settings) -> None:
    """Apply the RayServices of the queued services."""
    while True:
        await cluster.apply(ray_service(parse(await seen.get()), settings), "bare")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(operate())
