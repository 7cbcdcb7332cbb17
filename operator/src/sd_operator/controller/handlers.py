# SPDX-License-Identifier: Apache-2.0
"""The kopf handlers: an event of a resource or of its child puts a key into the queue.

kopf is only an event source here. Its state machine loses changes on errors, writes annotations and finalizers, and never
resyncs. Handlers neither raise nor wait for the API server.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import kopf

from sd_operator.api import GROUP, PLURAL, VERSION
from sd_operator.controller.work_queue import WorkQueue
from sd_operator.kube.own_writes import OwnWrites
from sd_operator.kube.preload_sharing import SharedPreloads
from sd_operator.kube.watched_kinds import CHILDREN, Watched, is_shared, keys
from sd_operator.naming import Key

ECHO_SECONDS = 0.1
"""The event of a write may arrive before the answer to the write."""

SETTLE_SECONDS = 0.2
"""Children change in bursts (one pod changes a dozen times while it starts); one pass handles a burst."""


def registry(
    queue: WorkQueue,
    own_writes: OwnWrites,
    shared: SharedPreloads,
    watch_began: Callable[[], None],
    children: Iterable[Watched] = CHILDREN,
) -> kopf.OperatorRegistry:
    """The handlers of the operator, which put keys into the queue; events of the operator's own writes are ignored.

    Args:
        queue: the queue for the keys.
        own_writes: the operator's own writes.
        shared: the shared DaemonSets; notified of each change of one of them.
        watch_began: called for each child that existed when its watch started; resync finds out which of them have changed.
        children: the kinds to watch in addition to the resource itself.
    """
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**known: Any) -> kopf.ConnectionInfo | None:
        # Both read their file again, so a rotated token is used.
        return kopf.login_with_service_account(**known) or kopf.login_with_kubeconfig(**known)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def service_changed(
        namespace: str | None, name: str, meta: Mapping[str, Any], status: Mapping[str, Any], **_: Any
    ) -> None:
        # Own status writes arrive as events too, and need no pass.
        if status.get("observedGeneration") != meta.get("generation"):
            queue.add(Key(namespace or "", name))

    async def child_changed(meta: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        if event["type"] is None:
            watch_began()  # the child existed before; resync finds out whether it has changed meanwhile
            return
        if await is_echo(event["type"], meta, own_writes):
            return
        concerned = keys(meta)
        if is_shared(meta):
            shared.changed(meta["namespace"])
            concerned = shared.concerned(meta, gone=event["type"] == "DELETED")
        for key in concerned:
            queue.add_later(key, SETTLE_SECONDS)

    for child in children:
        labels = {key: value or kopf.PRESENT for key, value in child.labels.items()} or None
        watched = kopf.on.event(*child.kind.resource, labels=labels, registry=handlers)
        watched(child_changed)
    return handlers


async def is_echo(change: str, metadata: Mapping[str, Any], own_writes: OwnWrites) -> bool:
    """Whether an event shows only the operator's own write; decided once the answer to that write must have arrived.

    Args:
        change: type of the event.
        metadata: metadata of the object.
        own_writes: the operator's own writes.
    """
    if change == "DELETED":
        return False
    await asyncio.sleep(ECHO_SECONDS)
    return own_writes.is_one(metadata)


def settings(*, scans: bool = True) -> kopf.OperatorSettings:
    """The settings of kopf: deadlines for all requests, endless retries, and no writes by kopf.

    Args:
        scans: whether kopf watches kinds and namespaces. Without the permission it would retry forever and watch nothing.
    """
    chosen = kopf.OperatorSettings()
    chosen.scanning.disabled = not scans
    chosen.posting.enabled = False
    # By default kopf would kill the process ten minutes after its end.
    chosen.process.ultimate_exiting_timeout = None
    chosen.persistence.diffbase_storage = _NoDiffs()
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 10
    chosen.networking.error_backoffs = _EndlessBackoff()
    chosen.watching.connect_timeout = 10
    chosen.watching.reconnect_backoff = 1.0
    # Few objects in memory at a time: lists are paged, and idle per-object workers end soon.
    chosen.watching.chunk_size = 50
    chosen.queueing.idle_timeout = 0.05
    for child in CHILDREN:  # those without labels are watched without a selector
        group, _, plural = child.kind.resource
        chosen.watching.label_selectors[f"{plural}.{group}" if group else plural] = child.selector
    return chosen


class _NoDiffs(kopf.DiffBaseStorage):
    """Stores no earlier states: the handlers need events only, and kopf would copy each object for a diff."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""


class _EndlessBackoff:
    """An endless sequence of pauses between retries; kopf starts a new iteration for each request.

    With a finite list the process would end if an API server is unavailable for longer than its sum.
    """

    def __iter__(self) -> Iterator[float]:
        pause = 1.0
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
            pause = min(30.0, pause * 2)
