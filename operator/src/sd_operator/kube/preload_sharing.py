# SPDX-License-Identifier: Apache-2.0
"""The DaemonSets that services of a namespace share; the users of a DaemonSet are its ownerReferences.

Garbage collection deletes an object once all of its owners are gone, and removes the reference of a deleted owner. This
works without the operator too, so the deletion of a service takes nothing from the other users. The operator applies
each object as a whole. A service that joins therefore sends the references of all present users, with the version from
which they were read. The API server refuses the write if the object has a newer version.
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
"""Maximum of references in one object: the object is sent whole when a service joins, and may have 1.5 MiB."""


class SharedPreloads:
    """Reads shared DaemonSets for all services of a namespace together, and writes one at a time."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._found: Recent[str, dict[str, Json]] = Recent(_FRESH_SECONDS, clock)
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._waiting: set[Key] = set()

    async def read(self, namespace: str) -> Mapping[str, Json]:
        """The shared DaemonSets of a namespace by name; at most ten seconds old, and never older than a watched change.

        Raises:
            Refused: the operator may not list them.
        """

        async def listed() -> dict[str, Json]:
            found = await self._cluster.list(DAEMON_SET, namespace, naming.preloads())
            return {each["metadata"]["name"]: each for each in found if is_shared(each)}

        return await self._found.get(namespace, listed)

    def changed(self, namespace: str) -> None:
        """Note that a shared DaemonSet of the namespace has changed, or may have changed."""
        self._found.changed(namespace)

    async def join(self, wanted: Json, known: Json | None) -> tuple[Json, bool]:
        """Apply a shared DaemonSet and add a service to its users; return it, and whether it was written.

        Args:
            wanted: the desired DaemonSet of the builder, with one user.
            known: the live DaemonSet as it was read a moment ago; None if it did not exist.

        Raises:
            NameConflict: an object of that name does not belong to the operator.
            Refused: the API server refuses the request.
            ClusterUnavailable: the DaemonSet changed meanwhile, or the API server does not answer.
        """
        if known is not None and _is_as_wanted(wanted, known):
            return known, False
        metadata = wanted["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        async with self._locks.setdefault(key, asyncio.Lock()):
            live = await self._cluster.get(DAEMON_SET, *key)
            if live is not None and not is_ours(live):
                raise NameConflict(
                    f"DaemonSet {key.name} exists and does not belong to this operator, so the operator does not change it."
                    " Delete or rename it"
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
        """Remove one user from a DaemonSet, or delete it with its last user; return whether it was deleted.

        Args:
            live: the live DaemonSet as it was read a moment ago.
            uid: uid of the user.

        Raises:
            Refused: the API server refuses the request.
            ClusterUnavailable: the DaemonSet changed meanwhile, or the API server does not answer.
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
            raise ClusterUnavailable(f"DaemonSet {live['metadata']['name']} changed during the update")
        return False

    def waits(self, key: Key, *, waits: bool) -> None:
        """Record whether a service waits for its images, so that it is reconciled when an image arrives."""
        if waits:
            self._waiting.add(key)
        else:
            self._waiting.discard(key)

    def concerned(self, metadata: Mapping[str, Any], *, gone: bool) -> list[Key]:
        """The services to reconcile after a change of a shared DaemonSet.

        If it is gone, these are all of its users. Otherwise these are the users that wait for their images, and one more,
        which repairs the DaemonSet if another client changed it. The other users see the new counts at the next resync. A
        node that joins or leaves should not start passes over a thousand services at the same time.
        """
        found = keys(metadata)
        return found if gone else [key for key in found if key in self._waiting or key == found[0]]


def _is_as_wanted(wanted: Json, live: Json) -> bool:
    """Whether the object is as desired and has the user, or has no room for another user."""
    there = {each["uid"] for each in users(live["metadata"])}
    new = {each["uid"] for each in wanted["metadata"].get("ownerReferences", [])} - there
    if new and len(there) < MOST_USERS:
        return False
    bare = {key: value for key, value in wanted["metadata"].items() if key != "ownerReferences"}
    return not needs_apply({**wanted, "metadata": bare}, _without_users(live), naming.FIELD_MANAGER)


def _without_users(live: Json) -> Json:
    """The same object without its owners, which are compared separately."""
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
    """The desired object with all users of the live object, bound to the version from which they were read."""
    metadata = wanted["metadata"]
    there = users(live["metadata"])
    known = {each["uid"] for each in there}
    new = [each for each in metadata.get("ownerReferences", []) if each["uid"] not in known]
    references = [*there, *new] if len(there) < MOST_USERS else there
    version = live["metadata"]["resourceVersion"]
    return {**wanted, "metadata": {**metadata, "ownerReferences": references, "resourceVersion": version}}
