# SPDX-License-Identifier: Apache-2.0
"""kopf, begun and ended: it watches until one watch meets an error, and is begun anew then.

`kopf.operator` would end by itself then, with every task of the process that is younger than it; it ends its own in an
order in which some wait for others that are gone already; and it keeps the signals. So its parts are used here.
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

# A kind went; or the API server told of an error within a stream, broke off within a line, or took no token.
_ENDED = (APIError, WatchingError, AccessError, LoginError, JSONDecodeError)
_WATCHER = "watcher for "  # so kopf names the tasks that watch a kind; it leaves them behind where one fails
_PAUSE_SECONDS = 2.0
_END_SECONDS = 30.0


async def watch(
    settings: Settings,
    cluster: Cluster,
    register: Callable[[tuple[Watched, ...]], kopf.OperatorRegistry],
    take_signals: Callable[[], None],
) -> None:
    """Have kopf put what changes into the queue, until cancelled.

    Args:
        settings: what is served.
        cluster: has the kinds that are watched.
        register: the handlers of these kinds.
        take_signals: called whenever kopf has taken the signals of the process.

    Raises:
        RuntimeError: kopf has failed in a way that is not known, or does not end.
    """
    while True:
        try:
            children = await watchable(cluster, settings.served_namespaces)
        except ClusterUnavailable as away:
            logger.warning("watches do not start yet: %s", away)
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        error = await _until_one_ends(settings, register(children), take_signals)
        if not isinstance(error, _ENDED):
            raise RuntimeError("kopf has ended") from error  # noqa: TRY004 - nobody gave us a wrong type
        logger.warning("a watch has ended (%s); all of them begin anew", str(error) or type(error).__name__)
        await asyncio.sleep(_PAUSE_SECONDS)
        logger.info("watching anew")


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
    """End what watches, and nothing that this waits for: those tasks end with it."""
    watchers = [each for each in asyncio.all_tasks() if each.get_name().startswith(_WATCHER)]
    for each in (*tasks, *watchers):
        each.cancel()
    done, left = await asyncio.wait({*tasks, *watchers}, timeout=_END_SECONDS)
    if left:
        raise RuntimeError(f"kopf does not end: {', '.join(each.get_name() for each in left)}")
    for each in done:
        if not each.cancelled():
            each.exception()  # looked at, or asyncio tells of it
