# SPDX-License-Identifier: Apache-2.0
"""The periodic LIST: what the watches lost, reordered or never reported is found here.

It compares versions with those of the last time and asks for a pass over what differs, so that a cluster in which
nothing happens costs a few requests however many resources it holds. What no version tells of, such as a deleted
Secret, waits for the full pass over everything, which is rare.

The first one after a start reads whole objects, a batch of services at a time, and their passes work from these. The
watches begin after it. What changed before they began is not in their events: each time one has begun, versions are
compared soon.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress

from sd_operator.controller import first_lists
from sd_operator.controller.first_lists import Objects
from sd_operator.controller.work_queue import Work, WorkQueue
from sd_operator.errors import KubeRayMissing, Refused, SdServiceError
from sd_operator.json_types import Json
from sd_operator.kube import SERVICE, Cluster, Kind, ListedCluster
from sd_operator.kube.watched_kinds import CHILDREN, OPTIONAL, SHARED, Watched, is_shared, keys
from sd_operator.naming import Key
from sd_operator.settings import Settings

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
GIVE_UP_SECONDS = 600.0
BATCH_SECONDS = 10.0
"""Longest wait for the passes of a batch; those that are left read for themselves."""
SETTLE_SECONDS = 2.0
"""A watch that begins reports every object there is; versions are compared once that is over."""

Kinds = frozenset[str] | None
"""Names of the kinds of children that there are; None before one was looked for."""


class Resync:
    """Puts resources into the queue.

    All of them at the start, every `full_resync_seconds`, and when KubeRay has come or gone; every `resync_seconds` those
    that differ from the last time, themselves or their children.

    Args:
        cluster: where they are listed.
        queue: where they are put.
        settings: what is served, and how often.
        pass_over: makes the work of one pass that reads from these lists.
        clock: seconds.
        changed: called with each service that differs from the last time; by default it is put into the queue.
    """

    def __init__(
        self,
        cluster: Cluster,
        queue: WorkQueue,
        settings: Settings,
        pass_over: Callable[[ListedCluster], Work],
        clock: Callable[[], float] = time.monotonic,
        *,
        changed: Callable[[Key], None] | None = None,
    ) -> None:
        self._cluster = cluster
        self._queue = queue
        self._changed = changed or queue.add_routine
        self._settings = settings
        self._pass_over = pass_over
        self._clock = clock
        self._known: Mapping[Key, int] = {}
        self._kinds: Kinds = None
        self._full_at = float("-inf")
        self._last_good = clock()
        self._complete = asyncio.Event()
        self._watch_began = asyncio.Event()

    def is_complete(self) -> bool:
        """Whether everything was listed once."""
        return self._complete.is_set()

    async def complete(self) -> None:
        """Wait until everything was listed once."""
        await self._complete.wait()

    def age_seconds(self) -> float:
        """Seconds since the last complete LIST, or batch of the first one; what the liveness probe reports."""
        return self._clock() - self._last_good

    def soon(self) -> None:
        """Compare versions once this has not been called for two seconds: a watch has begun, and reports what there is."""
        self._watch_began.set()

    async def run(self) -> None:
        """Resync until cancelled; a failed LIST is tried again soon.

        Raises:
            SdServiceError: none has succeeded for ten minutes more than there should have been between two.
        """
        while True:
            try:
                await self.once()
            except SdServiceError as error:
                if self.age_seconds() > self._settings.resync_seconds + GIVE_UP_SECONDS:
                    raise
                logger.warning("resync: %s; again in %.0f s", error, RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await self._pause()

    async def _pause(self) -> None:
        """Wait for the time of the next resync, or until a watch has begun."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._watch_began.wait(), self._settings.resync_seconds)
        while self._watch_began.is_set():
            self._watch_began.clear()
            await asyncio.sleep(SETTLE_SECONDS)

    async def once(self) -> None:
        """One complete LIST of the watched namespaces."""
        if not self.is_complete():
            self._known, self._kinds = await self._first()
            self._full_at = self._clock() + self._settings.full_resync_seconds
        else:
            await self._compare()
        self._last_good = self._clock()
        self._complete.set()

    async def _compare(self) -> None:
        found, kinds = await self._versions()
        everything = self._kinds not in {None, kinds} or self._clock() >= self._full_at
        for key in found.keys() | self._known.keys():
            if everything or found.get(key) != self._known.get(key):
                self._changed(key)
        self._known, self._kinds = found, kinds
        if everything:
            self._full_at = self._clock() + self._settings.full_resync_seconds

    async def _first(self) -> tuple[Mapping[Key, int], Kinds]:
        """Have a pass over every service, from lists; versions and kinds as `_versions` has them, no kinds without a service."""
        versions, kinds = dict[Key, int](), set[str]()

        async def look(namespace: str | None) -> None:
            async for batch in first_lists.batches(self._cluster, namespace):
                await self._queue.prepared_left(
                    len(batch), BATCH_SECONDS
                )  # one batch waits while the next one is read
                for key, objects in batch.items():
                    listed = first_lists.listed(self._cluster, key, objects, self._queue.take_token)
                    self._queue.add_prepared(key, self._pass_over(listed))
                    versions[key] = _version(objects)
                    kinds.update(kind.name for kind in objects if kind is not SERVICE)
                self._last_good = self._clock()
            # No label of theirs names a service, so the batches do not show them.
            await self._join(versions, kinds, (SHARED, *OPTIONAL), namespace)

        await self._in_each_namespace(look)
        await self._queue.prepared_left(0, BATCH_SECONDS)
        return versions, frozenset(kinds) if versions else None

    async def _versions(self) -> tuple[Mapping[Key, int], frozenset[str]]:
        """Of each resource, a number that changes with any version of it or of its children; and the kinds that there are."""
        versions, kinds = defaultdict[Key, int](int), set[str]()

        async def look(namespace: str | None) -> None:
            async for live in self._cluster.metadata(SERVICE, namespace):
                versions[Key(live["namespace"], live["name"])] ^= _fingerprint(SERVICE, live)
            await self._join(versions, kinds, (*CHILDREN, *OPTIONAL), namespace)

        await self._in_each_namespace(look)
        return dict(versions), frozenset(kinds)

    async def _in_each_namespace(self, look: Callable[[str | None], Awaitable[None]]) -> None:
        """Look at each served namespace.

        Raises:
            Refused: no namespace may be listed; one that may not keeps none of the others.
        """
        namespaces, refused = self._settings.served_namespaces or (None,), list[Refused]()
        for namespace in namespaces:
            try:
                await look(namespace)
            except Refused as error:
                logger.warning("resync: %s", error)
                refused.append(error)
        if len(refused) == len(namespaces):
            raise refused[0]

    async def _join(
        self, versions: dict[Key, int], kinds: set[str], which: Iterable[Watched], namespace: str | None
    ) -> None:
        """Let the versions of children into those of their resources; `kinds` get those that can be listed."""
        for watched in which:
            try:
                await self._join_children(versions, watched, namespace)
            except (KubeRayMissing, Refused) as error:
                logger.debug("resync: %s", error)  # a pass tells of it
            else:
                kinds.add(watched.kind.name)

    async def _join_children(self, versions: dict[Key, int], watched: Watched, namespace: str | None) -> None:
        """Let the versions of children of one kind into those of their resources."""
        async for live in self._cluster.metadata(watched.kind, namespace, watched.selector):
            for key in keys(live):
                if key in versions:
                    versions[key] ^= _fingerprint(watched.kind, live)


def _version(objects: Objects) -> int:
    """The number of one resource by its objects, as `Resync` has it by their metadata."""
    (service,) = objects[SERVICE]
    version = _fingerprint(SERVICE, service["metadata"])
    for watched in CHILDREN:
        for live in objects.get(watched.kind, ()):
            if watched.selects(live["metadata"].get("labels") or {}):
                version ^= _fingerprint(watched.kind, live["metadata"])
    return version


def _fingerprint(kind: Kind, metadata: Json) -> int:
    # Numbers that are joined by exclusive or do not depend on the order of a list.
    version = _shared_version(metadata) if is_shared(metadata) else metadata["resourceVersion"]
    return hash((kind.name, metadata["uid"], version))


def _shared_version(metadata: Json) -> str:
    """Changes with what an object asks for and with its status, but not with the services that come to share it."""
    reported = (
        each.get("time", "")
        for each in metadata.get("managedFields") or []
        if each.get("subresource") == "status"
    )
    return f"{metadata.get('generation')} {max(reported, default='')}"
