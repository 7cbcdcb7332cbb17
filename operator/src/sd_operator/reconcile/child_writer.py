# SPDX-License-Identifier: Apache-2.0
"""Writes the children of one resource in one pass, and remembers what it has written and what was refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sd_operator import naming
from sd_operator.api.status import Reason
from sd_operator.errors import NameConflict, Refused, WaitingForDeletion
from sd_operator.json_types import Json
from sd_operator.kube import DAEMON_SET, DEPLOYMENT, Cluster, kind_of
from sd_operator.kube.drift import needs_apply
from sd_operator.kube.own_writes import OwnWrites
from sd_operator.kube.ownership import belongs_to, conflict, is_shared
from sd_operator.kube.preload_sharing import SharedPreloads
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.snapshot import Snapshot, WarmView
from sd_operator.reconcile.desired import HELPERS
from sd_operator.reconcile.events import Note, changes


class Identity(NamedTuple):
    """Which child of a resource an object is."""

    kind: str
    name: str


Children = dict[Identity, Json]
_LISTED = {kind.name: kind for kind in (DAEMON_SET, DEPLOYMENT)}
"""Kinds of children that are found by their labels; the others are asked for by name."""
_REASONS = {NameConflict: Reason.NAME_CONFLICT, WaitingForDeletion: Reason.WAITING_FOR_DELETION}


def identity(body: Json) -> Identity:
    """Of an object."""
    return Identity(body["kind"], body["metadata"]["name"])


@dataclass
class ChildWriter:
    """Writes children; a helper that is refused keeps nothing else from being written.

    Attributes:
        uid: of the resource; `service` its name.
        own_writes: told of each child that is written.
        refused: helpers that could not be written or deleted, and why.
    """

    cluster: Cluster
    shared: SharedPreloads
    own_writes: OwnWrites
    uid: str
    service: str
    refused: dict[Identity, PodProblem] = field(default_factory=dict)
    _applied: list[Json] = field(default_factory=list)
    _deleted: list[Json] = field(default_factory=list)
    _left: list[Json] = field(default_factory=list)
    _more: list[Note] = field(default_factory=list)

    def notes(self) -> list[Note]:
        """What was written so far, for Events."""
        return [*changes(self._applied, self._deleted, self._left), *self._more]

    async def owned(self, namespace: str, found: Children, wanted: Mapping[Identity, Json]) -> Children:
        """Live children: those that carry our label, those that services share, and whatever has a name that is wanted.

        Args:
            namespace: of the resource.
            found: those that carry our label.
            wanted: what is wanted.

        Raises:
            NameConflict: an object of a wanted name is not ours, and the service cannot do without it.
            WaitingForDeletion: likewise, and it is on its way out.
        """
        children = dict(found)
        for each in (await self.shared.read(namespace)).values():
            if identity(each) in wanted or belongs_to(each, self.uid):
                children[identity(each)] = each
        for child, body in wanted.items():
            if child not in children and child.kind in _LISTED and not is_shared(body):
                live = await self.cluster.get(_LISTED[child.kind], namespace, child.name)
                if live is not None:
                    children[child] = live
            is_theirs = child in children and not belongs_to(children[child], self.uid)
            if is_theirs and child.kind not in HELPERS:
                raise conflict(children[child], child.kind, self.service)
        return children

    async def bring(self, body: Json, live: Json | None) -> Json | None:
        """Have a child be as wanted; return it, None where it is a helper that is refused.

        Args:
            body: what is wanted.
            live: as it was read, None where it was not there.

        Raises:
            NameConflict: an object of its name is not ours.
            WaitingForDeletion: likewise, and it is on its way out.
            Refused: the API server does not let us.
        """
        try:
            if is_shared(body):
                return await self._join(body, live)
            if live is not None and not belongs_to(live, self.uid):
                raise conflict(live, body["kind"], self.service)
            return await self._apply(body, live)
        except (NameConflict, WaitingForDeletion, Refused) as error:
            self._note_refusal(body, error)
            return None

    async def drop(self, live: Json) -> None:
        """Delete a child that is not wanted any more, or leave it to the others that share it.

        Raises:
            Refused: the API server does not let us.
        """
        try:
            if not is_shared(live):
                await self.cluster.delete(kind_of(live), live)
                self._deleted.append(live)
            elif await self.shared.leave(live, self.uid):
                self._deleted.append(live)
            else:
                self._left.append(live)
        except Refused as error:
            self._note_refusal(live, error)

    async def _apply(self, body: Json, live: Json | None) -> Json:
        if live is not None and not needs_apply(body, live, naming.FIELD_MANAGER):
            return live
        after = await self.cluster.apply(body, naming.FIELD_MANAGER)
        self._wrote(body, live, after)
        return after

    async def _join(self, body: Json, live: Json | None) -> Json:
        after, written = await self.shared.join(body, live)
        if written:
            self._wrote(body, live, after)
        return after

    def _wrote(self, body: Json, live: Json | None, after: Json) -> None:
        self.own_writes.wrote(after["metadata"])
        if live is None or after["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            self._applied.append(body)

    def note(self, note: Note) -> None:
        """Remember what else is to be told by an Event."""
        self._more.append(note)

    def _note_refusal(self, child: Json, error: NameConflict | WaitingForDeletion | Refused) -> None:
        if child["kind"] not in HELPERS:
            raise error
        which = identity(child)
        self.refused[which] = PodProblem(
            _REASONS.get(type(error), Reason.REFUSED), f"{which.kind} {which.name}", str(error)
        )


def with_refusals(snapshot: Snapshot, refused: Mapping[Identity, PodProblem], warm_nodes: int) -> Snapshot:
    """What is observed, with the helpers that could not be written.

    Args:
        snapshot: the rest.
        refused: these helpers.
        warm_nodes: places for spare workers that are asked for.
    """
    by_kind = {child.kind: found for child, found in reversed([*refused.items()])}
    if preload := by_kind.get(DAEMON_SET.name):
        snapshot = replace(snapshot, preload=replace(snapshot.preload, refused=preload))
    if warm := by_kind.get(DEPLOYMENT.name):
        view = snapshot.warm or WarmView(warm_nodes, 0)
        snapshot = replace(snapshot, warm=replace(view, words=str(warm)))
    return snapshot
