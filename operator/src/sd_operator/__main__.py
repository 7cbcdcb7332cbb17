# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_operator`: settings, logging, and kopf as the source of events.

Crash-only: whatever ends unexpectedly ends the process, and a new one converges from live objects.
"""

import asyncio
import logging
import sys

import kopf
from kopf._cogs.clients.errors import APINotFoundError  # kopf raises it and does not export it

from sd_operator import handlers, serve_reader, service_probe
from sd_operator.cluster import connect
from sd_operator.device_reader import DeviceReader
from sd_operator.errors import SdServiceError
from sd_operator.metrics import Metrics
from sd_operator.node_reader import NodeReader
from sd_operator.observer import Observer
from sd_operator.preload_reader import PreloadReader
from sd_operator.ray_dashboard import connections
from sd_operator.reconcile import Reconciler
from sd_operator.resync import Resync
from sd_operator.serve_reader import ServeReader
from sd_operator.settings import Settings
from sd_operator.work_queue import WorkQueue

logger = logging.getLogger("sd_operator")

_DASHBOARD_SECONDS = 5.0


async def operate(settings: Settings) -> None:
    """Run until a signal, or until a part of us ends that must not."""
    async with (
        connect(settings.request_timeout_seconds) as cluster,
        connections(_DASHBOARD_SECONDS) as session,
    ):
        if settings.dashboard_url:
            asks = serve_reader.directly(session, settings.dashboard_url, settings.proxy_url)
            probe = service_probe.directly()
        else:
            asks, probe = serve_reader.through_api_server(cluster), service_probe.through_api_server(cluster)
        serve, nodes, metrics = ServeReader(asks), NodeReader(cluster), Metrics()
        if settings.metrics_port:
            metrics.serve(settings.metrics_port)
        preloads = PreloadReader(cluster, nodes, settings.node_status_max_images)
        observer = Observer(cluster, serve, probe, DeviceReader(cluster, nodes), preloads)
        queue = WorkQueue(
            Reconciler(cluster, settings, observer, metrics=metrics).reconcile,
            workers=settings.workers,
            retry_base_seconds=settings.retry_base_seconds,
            retry_cap_seconds=settings.retry_cap_seconds,
        )
        resync = Resync(cluster, queue.add, settings)

        while not await _watch(settings, queue, resync, serve):
            logger.warning("a kind that was watched is gone; what there is now is watched anew")


async def _watch(settings: Settings, queue: WorkQueue, resync: Resync, serve: ServeReader) -> bool:
    """Work, and have kopf watch, until a signal; False where a watch ended because its kind did, which ends all of kopf."""
    stop = asyncio.Event()

    async def background() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(queue.run(), name="work queue")
                group.create_task(resync.run(), name="resync")
                group.create_task(serve.run(queue.add), name="reading of dashboards")
        finally:
            stop.set()

    try:
        await kopf.operator(
            registry=handlers.registry(queue, resync.age_seconds, background),
            standalone=True,
            clusterwide=not settings.served_namespaces,
            namespaces=settings.served_namespaces,
            liveness_endpoint=f"http://0.0.0.0:{settings.probe_port}/healthz"
            if settings.probe_port
            else None,
            stop_flag=stop,
        )
    except APINotFoundError:
        return False
    return True


def main() -> int:
    """Exit code 0 after a signal, 1 when the cluster cannot be reached at all."""
    settings = Settings()
    log_format = kopf.LogFormat.JSON if settings.log_format == "json" else kopf.LogFormat.FULL
    kopf.configure(log_format=log_format)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        asyncio.run(operate(settings))
    except SdServiceError as error:
        logger.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
