# SPDX-License-Identifier: Apache-2.0
"""Table of contents of what kopf tells us: an event of a resource or of its child puts a key in the queue.

kopf is an event source here and no more: its state machine loses changes on errors, writes annotations and
finalizers, and never resyncs. Handlers neither raise nor wait for the API server.
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
"""The event of a write may come before the answer to it."""

SETTLE_SECONDS = 0.2
"""Children change in bursts (a pod alone a dozen times while it starts); one pass answers a burst."""


def registry(
    queue: WorkQueue,
    own_writes: OwnWrites,
    shared: SharedPreloads,
    watch_began: Callable[[], None],
    children: Iterable[Watched] = CHILDREN,
) -> kopf.OperatorRegistry:
    """The handlers of the operator, which put keys into the queue; not for what it has written itself.

    Args:
        queue: where keys go.
        own_writes: what the operator wrote.
        shared: told of each change of what services share.
        watch_began: called for each child that was there when its watch began; resync finds which of them have changed.
        children: the kinds to watch beside the resource itself.
    """
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**known: Any) -> kopf.ConnectionInfo | None:
        # Both read their file anew, so a rotated token is picked up.
        return kopf.login_with_service_account(**known) or kopf.login_with_kubeconfig(**known)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def service_changed(
        namespace: str | None, name: str, meta: Mapping[str, Any], status: Mapping[str, Any], **_: Any
    ) -> None:
        # Our own status writes come back as events, with nothing in them to act on.
        if status.get("observedGeneration") != meta.get("generation"):
            queue.add(Key(namespace or "", name))

    async def child_changed(meta: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        if event["type"] is None:
            watch_began()  # it was there before; resync finds whether it has changed meanwhile
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
    """Whether an event tells of nothing but our own write; looked at once the answer to that must have come.

    Args:
        change: type of the event.
        metadata: of the object.
        own_writes: what we wrote.
    """
    if change == "DELETED":
        return False
    await asyncio.sleep(ECHO_SECONDS)
    return own_writes.is_one(metadata)


def settings(*, scans: bool = True) -> kopf.OperatorSettings:
    """How kopf behaves: deadlines on everything, pauses that do not run out, and nothing written by it.

    Args:
        scans: whether it watches kinds and namespaces; where it may not, it would ask for ever and watch nothing.
    """
    chosen = kopf.OperatorSettings()
    chosen.scanning.disabled = not scans
    chosen.posting.enabled = False
    # Ten minutes after it has ended, it would kill the process.
    chosen.process.ultimate_exiting_timeout = None
    chosen.persistence.diffbase_storage = _NoDiffs()
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 10
    chosen.networking.error_backoffs = _EndlessBackoff()
    chosen.watching.connect_timeout = 10
    chosen.watching.reconnect_backoff = 1.0
    # Few objects in memory at a time: lists come by pages, and who was told of an object forgets it soon.
    chosen.watching.chunk_size = 50
    chosen.queueing.idle_timeout = 0.05
    for child in CHILDREN:  # those without labels are watched without a selector
        group, _, plural = child.kind.resource
        chosen.watching.label_selectors[f"{plural}.{group}" if group else plural] = child.selector
    return chosen


class _NoDiffs(kopf.DiffBaseStorage):
    """Nothing is kept of earlier states: our handlers see events only, and kopf would copy each object for a diff."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""


class _EndlessBackoff:
    """Pauses between tries that never run out; kopf iterates anew for each request.

    A finite list ends the process when an API server is away for longer than its sum.
    """

    def __iter__(self) -> Iterator[float]:
        pause = 1.0
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
            pause = min(30.0, pause * 2)
