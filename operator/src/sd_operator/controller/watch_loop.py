# SPDX-License-Identifier: Apache-2.0
"""Runs kopf's watches, and restarts all of them if one watch fails.

`kopf.operator` is not used, because it ends itself after such an error, and every task of the process that is younger. It
also ends its own tasks in an order in which some wait for others that are gone already, and it keeps the signals.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from json import JSONDecodeError
from typing import Any

import kopf

# kopf raises these and does not export them.
from kopf._cogs.clients.errors import APIError
from kopf._cogs.clients.watching import WatchingError
from kopf._cogs.structs.credentials import AccessError, LoginError

from sd_operator.controller import handlers
from sd_operator.errors import ClusterUnavailable
from sd_operator.kube import Cluster
from sd_operator.kube.watched_kinds import Watched, watchable
from sd_operator.settings import Settings

logger = logging.getLogger(__name__)

# A kind was removed; or the API server reported an error in a stream, broke off in a line, or refused the token.
_ENDED = (APIError, WatchingError, AccessError, LoginError, JSONDecodeError)
_WATCHER = "watcher for "  # start of the names of kopf's watch tasks, which kopf leaves behind if one fails
_PAUSE_SECONDS = 2.0
_END_SECONDS = 30.0


async def watch(
    settings: Settings,
    cluster: Cluster,
    register: Callable[[tuple[Watched, ...]], kopf.OperatorRegistry],
    take_signals: Callable[[], None],
) -> None:
    """Run kopf's watches until cancelled; the handlers put changed services into the queue.

    Args:
        settings: the served namespaces.
        cluster: the client of the API server.
        register: makes the handlers of the watched kinds.
        take_signals: called whenever kopf has taken the signals of the process.

    Raises:
        RuntimeError: kopf failed with an unknown error, or did not stop.
    """
    while True:
        try:
            children = await watchable(cluster, settings.served_namespaces)
        except ClusterUnavailable as away:
            logger.warning("the watches cannot start yet: %s; next try in %.0f s", away, _PAUSE_SECONDS)
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        error = await _until_one_ends(settings, register(children), take_signals)
        if not isinstance(error, _ENDED):
            raise RuntimeError("kopf has ended") from error  # noqa: TRY004 - this is no argument of a wrong type
        logger.warning("a watch failed (%s); all watches restart", str(error) or type(error).__name__)
        await asyncio.sleep(_PAUSE_SECONDS)
        logger.info("all watches restart now")


async def _until_one_ends(
    settings: Settings, registry: kopf.OperatorRegistry, take_signals: Callable[[], None]
) -> BaseException | None:
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=handlers.settings(scans=settings.cluster_reads),
        standalone=True,
        clusterwide=not settings.served_namespaces,
        namespaces=settings.served_namespaces,
    )
    take_signals()
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(tasks)
    return next((error for each in done if (error := each.exception()) is not None), None)


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """End kopf's tasks and watchers; tasks for which they wait end with them."""
    watchers = [each for each in asyncio.all_tasks() if each.get_name().startswith(_WATCHER)]
    for each in (*tasks, *watchers):
        each.cancel()
    done, left = await asyncio.wait({*tasks, *watchers}, timeout=_END_SECONDS)
    if left:
        raise RuntimeError(f"tasks of kopf do not stop: {', '.join(each.get_name() for each in left)}")
    for each in done:
        if not each.cancelled():
            each.exception()  # retrieved, so that asyncio does not log it
