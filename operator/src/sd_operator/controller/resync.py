# SPDX-License-Identifier: Apache-2.0
"""The periodic LIST, which finds changes that the watches lost, reordered or never reported.

Each resync compares versions with those of the last one, and starts a pass over each service that differs. A quiet cluster
therefore costs a few requests, however many resources it has. A change without a version, such as a deleted Secret, waits
for the full resync over everything, which is rare.

The first resync after a start reads whole objects, a batch of services at a time, and their passes use these objects. The
watches start after it. Their events do not contain what changed before they started, so versions are compared soon after
the start of each watch.
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
"""Longest wait for the passes of a batch; the passes that are left then read for themselves."""
SETTLE_SECONDS = 2.0
"""A watch that starts reports every existing object; versions are compared once these reports have ended."""

Kinds = frozenset[str] | None
"""Names of the kinds of children that can be listed; None before the first LIST."""


class Resync:
    """Puts resources into the queue.

    At the start, every `full_resync_seconds`, and when KubeRay was installed or removed, these are all resources. Every
    `resync_seconds` these are the resources that differ from the last resync, or whose children differ.

    Args:
        cluster: the client of the API server.
        queue: the queue for the resources.
        settings: the served namespaces and the intervals.
        pass_over: makes the work of one pass that reads from these lists.
        clock: monotonic seconds.
        changed: called with each service that differs from the last resync; by default it is put into the queue.
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
        """Seconds since the last complete LIST, or batch of the first one; the liveness probe reports it."""
        return self._clock() - self._last_good

    def soon(self) -> None:
        """Compare versions once two seconds have passed without another call: a watch has started and reports objects."""
        self._watch_began.set()

    async def run(self) -> None:
        """Resync until cancelled; a failed LIST is retried soon.

        Raises:
            SdServiceError: no LIST has succeeded for ten minutes longer than the regular interval.
        """
        while True:
            try:
                await self.once()
            except SdServiceError as error:
                if self.age_seconds() > self._settings.resync_seconds + GIVE_UP_SECONDS:
                    raise
                logger.warning("the resync failed: %s; next try in %.0f s", error, RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await self._pause()

    async def _pause(self) -> None:
        """Wait for the time of the next resync, or until a watch has started."""
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
        """Start a pass over every service, from lists; return versions and kinds as `_versions`, without services no kinds."""
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
            # These objects have no label with a service's name, so the batches do not contain them.
            await self._join(versions, kinds, (SHARED, *OPTIONAL), namespace)

        await self._in_each_namespace(look)
        await self._queue.prepared_left(0, BATCH_SECONDS)
        return versions, frozenset(kinds) if versions else None

    async def _versions(self) -> tuple[Mapping[Key, int], frozenset[str]]:
        """A number for each resource that changes with any version of it or its children; and the kinds that can be listed."""
        versions, kinds = defaultdict[Key, int](int), set[str]()

        async def look(namespace: str | None) -> None:
            async for live in self._cluster.metadata(SERVICE, namespace):
                versions[Key(live["namespace"], live["name"])] ^= _fingerprint(SERVICE, live)
            await self._join(versions, kinds, (*CHILDREN, *OPTIONAL), namespace)

        await self._in_each_namespace(look)
        return dict(versions), frozenset(kinds)

    async def _in_each_namespace(self, look: Callable[[str | None], Awaitable[None]]) -> None:
        """Call `look` for each served namespace; a refused namespace does not affect the others.

        Raises:
            Refused: no namespace may be listed.
        """
        namespaces, refused = self._settings.served_namespaces or (None,), list[Refused]()
        for namespace in namespaces:
            try:
                await look(namespace)
            except Refused as error:
                logger.warning("the resync leaves out namespace %s: %s", namespace or "*", error)
                refused.append(error)
        if len(refused) == len(namespaces):
            raise refused[0]

    async def _join(
        self, versions: dict[Key, int], kinds: set[str], which: Iterable[Watched], namespace: str | None
    ) -> None:
        """Add the versions of children to those of their resources, and the kinds that can be listed to `kinds`."""
        for watched in which:
            try:
                await self._join_children(versions, watched, namespace)
            except (KubeRayMissing, Refused) as error:
                logger.debug("the resync leaves out a kind: %s", error)  # a pass reports the error
            else:
                kinds.add(watched.kind.name)

    async def _join_children(self, versions: dict[Key, int], watched: Watched, namespace: str | None) -> None:
        """Add the versions of children of one kind to those of their resources."""
        async for live in self._cluster.metadata(watched.kind, namespace, watched.selector):
            for key in keys(live):
                if key in versions:
                    versions[key] ^= _fingerprint(watched.kind, live)


def _version(objects: Objects) -> int:
    """The version number of one resource, computed from its objects as `Resync` computes it from their metadata."""
    (service,) = objects[SERVICE]
    version = _fingerprint(SERVICE, service["metadata"])
    for watched in CHILDREN:
        for live in objects.get(watched.kind, ()):
            if watched.selects(live["metadata"].get("labels") or {}):
                version ^= _fingerprint(watched.kind, live["metadata"])
    return version


def _fingerprint(kind: Kind, metadata: Json) -> int:
    # Exclusive or joins these numbers, so the order of a list does not matter.
    version = _shared_version(metadata) if is_shared(metadata) else metadata["resourceVersion"]
    return hash((kind.name, metadata["uid"], version))


def _shared_version(metadata: Json) -> str:
    """A version that changes with spec and status of a shared object, but not with its users."""
    reported = (
        each.get("time", "")
        for each in metadata.get("managedFields") or []
        if each.get("subresource") == "status"
    )
    return f"{metadata.get('generation')} {max(reported, default='')}"
