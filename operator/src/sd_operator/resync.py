# SPDX-License-Identifier: Apache-2.0
"""The periodic LIST: what the watch lost, reordered or never said is found here.

It compares versions with those of the last time and asks for a pass over what differs, so that a cluster in which
nothing happens costs a few requests however many resources it holds. What no version tells of, such as a deleted
Secret, waits for the full pass over everything, which is rare.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from sd_operator import naming
from sd_operator.cluster import SERVICE, Cluster, Kind
from sd_operator.errors import KubeRayMissing, Refused, SdServiceError
from sd_operator.naming import Key
from sd_operator.settings import Settings
from sd_operator.watched import CHILDREN, Watched

Json = dict[str, Any]

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
GIVE_UP_SECONDS = 600.0


class Resync:
    """Puts resources into the queue.

    All of them at the start, every `full_resync_seconds`, and when KubeRay has come or gone;
    every `resync_seconds` those that differ from the last time, themselves or their children.
    """

    def __init__(
        self,
        cluster: Cluster,
        add: Callable[[Key], None],
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._add = add
        self._settings = settings
        self._clock = clock
        self._known: Mapping[Key, int] = {}
        self._kinds = frozenset[str]()
        self._full_at = float("-inf")
        self._last_good = clock()
        self._is_complete = False

    def is_complete(self) -> bool:
        """Whether everything was listed once."""
        return self._is_complete

    def age_seconds(self) -> float:
        """Seconds since the last complete LIST; what the liveness probe reports."""
        return self._clock() - self._last_good

    async def run(self) -> None:
        """Resync until cancelled; a failed LIST is tried again soon.

        Raises:
            SdServiceError: none has succeeded for ten minutes more than there should have been between two.
        """
        self._full_at = float("-inf")  # what ran before may have been cut off in the middle
        while True:
            try:
                await self.once()
            except SdServiceError as error:
                if self.age_seconds() > self._settings.resync_seconds + GIVE_UP_SECONDS:
                    raise
                logger.warning("resync: %s; again in %.0f s", error, RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await asyncio.sleep(self._settings.resync_seconds)

    async def once(self) -> None:
        """One complete LIST of the watched namespaces."""
        found, kinds = await self._versions()
        everything = kinds != self._kinds or self._clock() >= self._full_at
        for key in found.keys() | self._known.keys():
            if everything or found.get(key) != self._known.get(key):
                self._add(key)
        self._known, self._kinds = found, kinds
        self._last_good = self._clock()
        self._is_complete = True
        if everything:
            self._full_at = self._last_good + self._settings.full_resync_seconds

    async def _versions(self) -> tuple[Mapping[Key, int], frozenset[str]]:
        """Of each resource, a number that changes with any version of it or of its children; and the kinds that there are.

        Raises:
            Refused: no namespace may be listed; one that may not keeps none of the others.
        """
        versions, kinds, refused = defaultdict[Key, int](int), set[str](), list[Refused]()
        namespaces = self._settings.served_namespaces or (None,)
        for namespace in namespaces:
            try:
                async for live in self._cluster.metadata(SERVICE, namespace):
                    versions[Key(live["namespace"], live["name"])] ^= _fingerprint(SERVICE, live)
            except Refused as error:
                logger.warning("resync: %s", error)
                refused.append(error)
                continue
            for watched in CHILDREN:
                try:
                    await self._join_children(versions, watched, namespace)
                except (KubeRayMissing, Refused) as error:
                    logger.debug("resync: %s", error)  # a pass tells of it
                else:
                    kinds.add(watched.kind.name)
        if len(refused) == len(namespaces):
            raise refused[0]
        return dict(versions), frozenset(kinds)

    async def _join_children(self, versions: dict[Key, int], watched: Watched, namespace: str | None) -> None:
        """Let the versions of children of one kind into those of their resources."""
        async for live in self._cluster.metadata(watched.kind, namespace, watched.selector):
            key = Key(live["namespace"], live["labels"][naming.NAME_LABEL])
            if key in versions:
                versions[key] ^= _fingerprint(watched.kind, live)


def _fingerprint(kind: Kind, metadata: Json) -> int:
    # Numbers that are joined by exclusive or do not depend on the order of a list.
    return hash((kind.name, metadata["uid"], metadata["resourceVersion"]))
