# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_operator`: settings, logging, leadership, and kopf as the source of events.

Crash-only: whatever ends unexpectedly ends the process, and a new one converges from live objects.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from json import JSONDecodeError

import kopf

# kopf raises these and does not export them.
from kopf._cogs.clients.errors import APIError
from kopf._cogs.clients.watching import WatchingError
from kopf._cogs.structs.credentials import AccessError, LoginError

from sd_operator import handlers, health, lease, serve_reader, service_probe
from sd_operator.cluster import Cluster, connect
from sd_operator.device_reader import DeviceReader
from sd_operator.errors import LeadershipLost, SdServiceError
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
_PAUSE_SECONDS = 2.0
_WATCH_ENDED = (APIError, WatchingError, AccessError, LoginError, JSONDecodeError)
_LEADERSHIP_LOST = 3


async def operate(settings: Settings) -> None:
    """Run until a signal.

    Raises:
        LeadershipLost: another operator writes now.
        ClusterUnavailable: there is no API server, or none has answered for ten minutes.
    """
    metrics = Metrics()
    async with (
        connect(settings.request_timeout_seconds) as connected,
        connections(_DASHBOARD_SECONDS) as session,
    ):
        leadership = _leadership(connected, settings)
        cluster = connected.but(may_write=leadership.held)
        if settings.dashboard_url:
            asks = serve_reader.directly(session, settings.dashboard_url, settings.proxy_url)
            probe = service_probe.directly()
        else:
            asks, probe = serve_reader.through_api_server(cluster), service_probe.through_api_server(cluster)
        serve, nodes = ServeReader(asks), NodeReader(cluster)
        preloads = PreloadReader(cluster, nodes, settings.node_status_max_images)
        observer = Observer(cluster, serve, probe, DeviceReader(cluster, nodes), preloads)
        reconciler = Reconciler(cluster, settings, observer, metrics=metrics)
        queue = WorkQueue(
            metrics.timed(reconciler.reconcile),
            workers=settings.workers,
            retry_base_seconds=settings.retry_base_seconds,
            retry_cap_seconds=settings.retry_cap_seconds,
            per_second=settings.passes_per_second,
        )
        resync = Resync(cluster, nodes, queue.add, settings)
        metrics.watch(leads=leadership.held, resync_age=resync.age_seconds, waiting=queue.waiting)
        if settings.metrics_port:
            metrics.serve(settings.metrics_port)
        alive = health.Health(leadership, resync, settings.resync_seconds)
        async with health.serving(settings.probe_port, alive.report, alive.is_ready):
            await leadership.acquire()
            try:
                while not await _work(settings, leadership, queue, resync, serve):
                    logger.info("watching anew")
            finally:
                await leadership.release()


def _leadership(connected: Cluster, settings: Settings) -> lease.Leadership:
    if not settings.leader_election:
        return lease.Alone()
    identity = settings.pod_name or f"{socket.gethostname()}-{os.getpid()}"
    return lease.Lease(
        connected.but(request_timeout_seconds=lease.REQUEST_SECONDS), settings.namespace, identity
    )


async def _work(
    settings: Settings, leadership: lease.Leadership, queue: WorkQueue, resync: Resync, serve: ServeReader
) -> bool:
    """Work, and have kopf watch, until a signal; False where a watch has ended, and with it all of kopf."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(leadership.keep(), name="keeping the Lease"),
                group.create_task(queue.run(), name="work queue"),
                group.create_task(resync.run(), name="resync"),
                group.create_task(serve.run(queue.add), name="reading of dashboards"),
            ]
            try:
                done = await _watch(settings, queue)
            finally:
                # kopf ends every task that was begun since its start, so parts of these may be gone: begin anew.
                for task in tasks:
                    task.cancel()
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    if not done:
        await asyncio.sleep(_PAUSE_SECONDS)
    return done


async def _watch(settings: Settings, queue: WorkQueue) -> bool:
    try:
        await kopf.operator(
            registry=handlers.registry(queue),
            settings=handlers.settings(scans=settings.cluster_reads),
            standalone=True,
            clusterwide=not settings.served_namespaces,
            namespaces=settings.served_namespaces,
        )
    except _WATCH_ENDED as error:
        # A kind went; or the API server told of an error within a stream, broke off within a line, or took no token.
        logger.warning(
            "a watch has ended (%s); what there is now is watched anew", error or type(error).__name__
        )
        return False
    return True


async def _until_signal(settings: Settings) -> None:
    """`operate`, which a signal ends also before kopf listens for one."""
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await operate(settings)


def main() -> int:
    """Exit code 0 after a signal, 1 when the cluster cannot be reached, 3 when another operator leads."""
    settings = Settings()
    log_format = kopf.LogFormat.JSON if settings.log_format == "json" else kopf.LogFormat.FULL
    kopf.configure(log_format=log_format)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        asyncio.run(_until_signal(settings))
    except asyncio.CancelledError:
        return 0
    except LeadershipLost as error:
        logger.critical("%s", error)
        return _LEADERSHIP_LOST
    except SdServiceError as error:
        logger.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
