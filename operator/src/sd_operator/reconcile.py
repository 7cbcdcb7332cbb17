# SPDX-License-Identifier: Apache-2.0
"""Observe, decide, apply, report: one level-triggered pass over one resource.

It is the same pass for create, edit, child event, resync and restart; every step starts from live objects, so it
may be cut off anywhere and run again.
"""

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from sd_operator import naming, status
from sd_operator.api import KIND, Resource, Status, parse
from sd_operator.api.resource import API_VERSION
from sd_operator.builders.pod import image
from sd_operator.builders.token_secret import token_secret
from sd_operator.cluster import DAEMON_SET, POD, RAY_SERVICE, SECRET, SERVICE, Cluster, kind_of
from sd_operator.desired import desired
from sd_operator.drift import differs, owned_fields
from sd_operator.errors import InvalidResource, KubeRayMissing, NameConflict, Refused
from sd_operator.events import Note, changes, event, flips
from sd_operator.observed import Observed, observe
from sd_operator.settings import Settings

Json = dict[str, Any]

logger = logging.getLogger(__name__)


class Key(NamedTuple):
    """Identity of a resource in queues and logs."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Reconciler:
    """Everything that acts, as arguments: the cluster, the settings, the clock and the source of tokens."""

    cluster: Cluster
    settings: Settings
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    draw_token: Callable[[], str] = field(default=lambda: secrets.token_hex(32))

    async def reconcile(self, key: Key) -> None:
        """Bring the children and the status of one resource in line with its spec.

        Raises:
            ClusterUnavailable: the API server is away or busy; the queue comes again.
        """
        live = await self.cluster.get(SERVICE, key.namespace, key.name)
        if live is None or "deletionTimestamp" in live["metadata"]:
            return  # garbage collection takes the children
        before = _status_of(live)
        try:
            resource = parse(live)
            notes = await self._apply(resource)
            observed = await self._observe(resource)
            after = status.compute(
                resource, observed, image(resource.spec, self.settings), before, self.clock()
            )
        except (InvalidResource, NameConflict, KubeRayMissing, Refused) as error:
            notes = []
            after = status.rejected(live["metadata"]["generation"], error, before, self.clock())
        await self._report(live, before, after, notes)

    async def _apply(self, resource: Resource) -> list[Note]:
        """Create the token once, apply what differs, delete what is ours and no longer wanted."""
        wanted = desired(resource, self.settings)
        present = await self._children(resource, wanted)
        await self._ensure_token(resource)
        applied = [body for body in wanted if await self._apply_one(body, present)]
        names = {(body["kind"], body["metadata"]["name"]) for body in wanted}
        owned = await self.cluster.list(DAEMON_SET, resource.namespace, naming.labels(resource.name))
        unwanted = [
            {"kind": DAEMON_SET.name, **each}
            for each in owned
            if (DAEMON_SET.name, each["metadata"]["name"]) not in names and _owner(each) == resource.uid
        ]
        for each in unwanted:
            await self.cluster.delete(DAEMON_SET, each)
        return changes(applied, unwanted)

    async def _apply_one(self, body: Json, present: Mapping[tuple[str, str], Json]) -> bool:
        """Apply an object that differs; tell whether that changed it."""
        live = present.get((body["kind"], body["metadata"]["name"]))
        if live is not None and not differs(body, live, naming.FIELD_MANAGER):
            return False
        after = await self.cluster.apply(body, naming.FIELD_MANAGER)
        return live is None or after["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]

    async def _children(self, resource: Resource, wanted: list[Json]) -> Mapping[tuple[str, str], Json]:
        """Live objects of the names we want.

        Raises:
            NameConflict: one of them is not ours.
        """
        present: dict[tuple[str, str], Json] = {}
        for body in wanted:
            name = body["metadata"]["name"]
            live = await self.cluster.get(kind_of(body), resource.namespace, name)
            if live is None:
                continue
            if not _is_ours(live, resource):
                raise NameConflict(
                    f"{body['kind']} {name} exists and belongs to someone else; it is left alone:"
                    " delete or rename it, or give this service another name"
                )
            present[body["kind"], name] = live
        return present

    async def _ensure_token(self, resource: Resource) -> None:
        name = naming.token_secret(resource.name)
        live = await self.cluster.get(SECRET, resource.namespace, name)
        if live is None:
            await self.cluster.create(token_secret(resource, self.draw_token()), naming.FIELD_MANAGER)
        elif not _is_ours(live, resource):
            raise NameConflict(f"Secret {name} exists and belongs to someone else; delete or rename it")

    async def _observe(self, resource: Resource) -> Observed:
        labels = {naming.NAME_LABEL: resource.name}
        return observe(
            await self.cluster.get(RAY_SERVICE, resource.namespace, resource.name),
            await self.cluster.list(POD, resource.namespace, labels),
            await self.cluster.list(DAEMON_SET, resource.namespace, labels),
        )

    async def _report(self, live: Json, before: Status, after: Status, notes: list[Note]) -> None:
        """Write the status if it changed, and an Event for each change."""
        if after != before:
            await self.cluster.apply_status(_status_body(live, after), naming.STATUS_FIELD_MANAGER)
        for note in [*notes, *flips(before, after)]:
            metadata = live["metadata"]
            logger.info("%s/%s: %s", metadata["namespace"], metadata["name"], note.message)
            await self.cluster.create(event(note, live, self.clock()), naming.FIELD_MANAGER)


def _owner(live: Json) -> str | None:
    owners = live["metadata"].get("ownerReferences", [])
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def _is_ours(live: Json, resource: Resource) -> bool:
    """Ours by owner; or by field manager, where someone stripped the owner and it is to be put back."""
    owner = _owner(live)
    return owner == resource.uid or (owner is None and bool(owned_fields(live, naming.FIELD_MANAGER)))


def _status_of(live: Json) -> Status:
    try:
        return Status.model_validate_json(json.dumps(live.get("status") or {}))
    except ValidationError:
        # Written by another version; only transition times are taken from it.
        return Status()


def _status_body(live: Json, after: Status) -> Json:
    metadata = live["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        # The uid makes the write fail where the resource was deleted and made anew meanwhile.
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "status": after.model_dump(by_alias=True, exclude_none=True, mode="json"),
    }
