# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_operator`: starts the operator with settings, logging, leader election and kopf's watches.

The operator is crash-only: an unexpected end of any task ends the process, and a new process reconciles live objects.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

import kopf

from sd_operator.bounded_http import connections
from sd_operator.controller import handlers, health, leader_election
from sd_operator.controller.resync import Resync
from sd_operator.controller.watch_loop import watch
from sd_operator.controller.work_queue import Work, WorkQueue
from sd_operator.errors import LeadershipLost, SdServiceError
from sd_operator.kube import Cluster, ListedCluster, connect
from sd_operator.metrics import Metrics
from sd_operator.naming import Key
from sd_operator.observe.node_cache import NodeReader
from sd_operator.observe.observer import Observer
from sd_operator.observe.preload_reader import PreloadReader
from sd_operator.ray import readiness_probe, serve_reader
from sd_operator.ray.probe_poller import ProbePoller
from sd_operator.ray.serve_poller import ServePoller
from sd_operator.ray.serve_reader import ServeReader
from sd_operator.reconcile.reconciler import Reconciler
from sd_operator.reconcile.rollout import Rollout
from sd_operator.settings import Settings

logger = logging.getLogger("sd_operator")

_DASHBOARD_SECONDS = 5.0
_LEADERSHIP_LOST = 3


async def operate(settings: Settings, take_signals: Callable[[], None]) -> None:
    """Run the operator until it is cancelled.

    Args:
        settings: the settings of the operator.
        take_signals: installs signal handlers that cancel the operator. It is called again after a library replaced them.

    Raises:
        LeadershipLost: another operator is the leader now.
        ClusterUnavailable: the API server does not exist, or has not answered for ten minutes.
    """
    metrics = Metrics()
    async with (
        connect(settings.request_timeout_seconds) as connected,
        connections(_DASHBOARD_SECONDS) as session,
    ):
        leadership = _leadership(connected, settings)
        cluster = connected.but(may_write=leadership.held)
        if settings.dashboard_url:
            requests = serve_reader.directly(session, settings.dashboard_url, settings.proxy_url)
            probe = readiness_probe.directly(session)
        else:
            requests, probe = (
                serve_reader.through_api_server(cluster),
                readiness_probe.through_api_server(cluster),
            )
        serve = ServePoller(ServeReader(requests), metrics.polled("dashboard"))
        probes = ProbePoller(probe, counted=metrics.polled("service"))
        nodes = NodeReader(cluster, most_listed=settings.node_status_max_images)
        preloads = PreloadReader(cluster, nodes, settings.node_status_max_images)
        observer = Observer(cluster, serve, probes, nodes, preloads)
        reconciler = Reconciler(
            cluster, settings, observer, metrics=metrics, rollout=Rollout(settings.rollout_at_once)
        )
        queue = WorkQueue(
            metrics.timed(reconciler.reconcile),
            workers=settings.workers,
            retry_base_seconds=settings.retry_base_seconds,
            retry_cap_seconds=settings.retry_cap_seconds,
            per_second=settings.passes_per_second,
        )

        def resynced(key: Key) -> None:
            """Discard cached shared DaemonSets, because the resync may have seen newer ones, and queue the service."""
            preloads.shared.changed(key.namespace)
            queue.add_routine(key)

        def pass_over(listed: ListedCluster) -> Work:
            return metrics.timed(reconciler.reading(listed).reconcile)

        resync = Resync(cluster, queue, settings, pass_over, changed=resynced)
        metrics.watch(leads=leadership.held, resync_age=resync.age_seconds, waiting=queue.waiting)
        if settings.metrics_port:
            metrics.serve(settings.metrics_port)
        alive = health.Health(leadership, resync, settings.resync_seconds)
        async with health.serving(settings.probe_port, alive.report, alive.is_ready):
            await leadership.acquire()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(leadership.keep(), name="keeping the Lease")
                    group.create_task(queue.run(), name="work queue")
                    group.create_task(resync.run(), name="resync")
                    group.create_task(nodes.run(queue.add_routine, settings.resync_seconds), name="nodes")
                    group.create_task(serve.run(queue.add, queue.add_routine), name="dashboard polls")
                    group.create_task(probes.run(queue.add), name="service polls")
                    register = partial(
                        handlers.registry, queue, reconciler.own_writes, preloads.shared, resync.soon
                    )
                    # kopf handles every object that a new watch lists. So the resync from lists comes first.
                    await resync.complete()
                    group.create_task(watch(settings, cluster, register, take_signals), name="watches")
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from failed
            finally:
                await leadership.release()


def _leadership(connected: Cluster, settings: Settings) -> leader_election.Leadership:
    if not settings.leader_election:
        return leader_election.Alone()
    identity = settings.pod_name or f"{socket.gethostname()}-{os.getpid()}"
    return leader_election.Lease(
        connected.but(request_timeout_seconds=leader_election.REQUEST_SECONDS), settings.namespace, identity
    )


async def _until_signal(settings: Settings) -> None:
    """Run `operate`. SIGINT and SIGTERM cancel it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def take_signals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            if task is not None:
                loop.add_signal_handler(number, task.cancel)

    take_signals()
    await operate(settings, take_signals)


def main() -> int:
    """Run the operator. Exit code 0 after a signal, 1 if the cluster is not reachable, 3 if leadership is lost."""
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
