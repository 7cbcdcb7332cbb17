# SPDX-License-Identifier: Apache-2.0
"""The DaemonSets that services of a namespace share: who uses one stands in its ownerReferences, and nowhere else.

Garbage collection deletes an object once none of its owners is there, with the operator running or not, and takes the
reference of an owner that is gone out by itself. So the deletion of a service takes nothing from the others. As the
operator applies each object whole, a service that joins sends the references of all that are there already; the version
that they were read from goes with them, and the API server refuses what was decided on an older one.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakValueDictionary

from sd_operator import naming
from sd_operator.errors import ClusterUnavailable, NameConflict
from sd_operator.json_types import Json
from sd_operator.kube import DAEMON_SET, Cluster
from sd_operator.kube.drift import needs_apply
from sd_operator.kube.ownership import is_ours, is_shared, users
from sd_operator.kube.watched_kinds import keys
from sd_operator.naming import Key
from sd_operator.recent import Recent

_FRESH_SECONDS = 10.0
MOST_USERS = 500
"""References in one object: it is sent whole whenever a service joins, and an object has 1.5 MiB at most."""


class SharedPreloads:
    """Reads them for all services of a namespace together; writes for one at a time."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._found: Recent[str, dict[str, Json]] = Recent(_FRESH_SECONDS, clock)
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._waiting: set[Key] = set()

    async def read(self, namespace: str) -> Mapping[str, Json]:
        """The shared DaemonSets of a namespace by name, ten seconds old at most, and never older than a change that a watch told.

        Raises:
            Refused: they may not be listed.
        """

        async def listed() -> dict[str, Json]:
            found = await self._cluster.list(DAEMON_SET, namespace, naming.preloads())
            return {each["metadata"]["name"]: each for each in found if is_shared(each)}

        return await self._found.get(namespace, listed)

    def changed(self, namespace: str) -> None:
        """One of them has changed, or may have."""
        self._found.changed(namespace)

    async def join(self, wanted: Json, known: Json | None) -> tuple[Json, bool]:
        """Have a DaemonSet be as one of its users wants it, with that user among the others; return it, and whether it was written.

        Args:
            wanted: as its builder makes it, with one user.
            known: as it was read a moment ago, None where it was not there.

        Raises:
            NameConflict: an object of that name is not ours.
            Refused: the API server does not let us.
            ClusterUnavailable: it changed under our hands, or there is no answer.
        """
        if known is not None and _is_as_wanted(wanted, known):
            return known, False
        metadata = wanted["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        async with self._locks.setdefault(key, asyncio.Lock()):
            live = await self._cluster.get(DAEMON_SET, *key)
            if live is not None and not is_ours(live):
                raise NameConflict(
                    f"DaemonSet {key.name} exists and belongs to someone else; it is left alone: delete or rename it"
                )
            if live is not None and _is_as_wanted(wanted, live):
                return live, False
            body = wanted if live is None else _with_users(wanted, live)
            try:
                after = await self._cluster.apply(body, naming.FIELD_MANAGER)
            finally:
                self.changed(key.namespace)
        return after, True

    async def leave(self, live: Json, uid: str) -> bool:
        """Take one user out of a DaemonSet; the last one takes it along. Return whether it is deleted.

        Args:
            live: as it was read a moment ago.
            uid: of the user.

        Raises:
            Refused: the API server does not let us.
            ClusterUnavailable: it changed under our hands, or there is no answer.
        """
        self.changed(live["metadata"]["namespace"])
        references = live["metadata"].get("ownerReferences") or []
        if all(each["uid"] == uid for each in references):
            await self._cluster.delete(DAEMON_SET, live, unchanged=True)
            return True
        number = next(number for number, each in enumerate(references) if each["uid"] == uid)
        path = f"/metadata/ownerReferences/{number}"
        operations = [{"op": "test", "path": f"{path}/uid", "value": uid}, {"op": "remove", "path": path}]
        if await self._cluster.patch(DAEMON_SET, live, operations, naming.FIELD_MANAGER) is None:
            raise ClusterUnavailable(f"DaemonSet {live['metadata']['name']} changed meanwhile")
        return False

    def waits(self, key: Key, *, waits: bool) -> None:
        """Remember whether a service waits for its images: then it has to know of each that arrives."""
        if waits:
            self._waiting.add(key)
        else:
            self._waiting.discard(key)

    def concerned(self, metadata: Mapping[str, Any], *, gone: bool) -> list[Key]:
        """The services to reconcile after a change of one of them.

        All of its users where it is gone; else those that wait for their images, and one more, which repairs it if it was
        tampered with. The others see its new counts at the next resync: a node that comes or goes should not make a
        thousand services ask for everything at the same time.
        """
        found = keys(metadata)
        return found if gone else [key for key in found if key in self._waiting or key == found[0]]


def _is_as_wanted(wanted: Json, live: Json) -> bool:
    """Whether the user is among the others, or there is no room, and the rest of the object is as wanted."""
    there = {each["uid"] for each in users(live["metadata"])}
    new = {each["uid"] for each in wanted["metadata"].get("ownerReferences", [])} - there
    if new and len(there) < MOST_USERS:
        return False
    bare = {key: value for key, value in wanted["metadata"].items() if key != "ownerReferences"}
    return not needs_apply({**wanted, "metadata": bare}, _without_users(live), naming.FIELD_MANAGER)


def _without_users(live: Json) -> Json:
    """The same as if it had no owners; each of them is compared by itself, not each with each."""
    metadata = {key: value for key, value in live["metadata"].items() if key != "ownerReferences"}
    entries = []
    for entry in metadata.get("managedFields") or []:
        fields = entry.get("fieldsV1") or {}
        of_metadata = {
            key: value for key, value in fields.get("f:metadata", {}).items() if key != "f:ownerReferences"
        }
        entries.append({**entry, "fieldsV1": {**fields, "f:metadata": of_metadata}})
    return {**live, "metadata": {**metadata, "managedFields": entries}}


def _with_users(wanted: Json, live: Json) -> Json:
    """The same with all users of the live object, bound to the version that they were read from."""
    metadata = wanted["metadata"]
    there = users(live["metadata"])
    known = {each["uid"] for each in there}
    new = [each for each in metadata.get("ownerReferences", []) if each["uid"] not in known]
    references = [*there, *new] if len(there) < MOST_USERS else there
    version = live["metadata"]["resourceVersion"]
    return {**wanted, "metadata": {**metadata, "ownerReferences": references, "resourceVersion": version}}
