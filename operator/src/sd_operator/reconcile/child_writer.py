# SPDX-License-Identifier: Apache-2.0
"""Writes the children of one resource in one pass, and records what was written and what was refused."""

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
    """Kind and name of a child."""

    kind: str
    name: str


Children = dict[Identity, Json]
_LISTED = {kind.name: kind for kind in (DAEMON_SET, DEPLOYMENT)}
"""Kinds of children that are found by their labels; the others are read by name."""
_REASONS = {NameConflict: Reason.NAME_CONFLICT, WaitingForDeletion: Reason.WAITING_FOR_DELETION}


def identity(body: Json) -> Identity:
    """Kind and name of an object."""
    return Identity(body["kind"], body["metadata"]["name"])


@dataclass
class ChildWriter:
    """Writes children; if a helper object is refused, the other children are still written.

    Attributes:
        uid: uid of the resource; `service` is its name.
        own_writes: records each child that is written.
        refused: helper objects that could not be written or deleted, with the problem.
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
        """Notes of everything that was written so far, for Events."""
        return [*changes(self._applied, self._deleted, self._left), *self._more]

    async def owned(self, namespace: str, found: Children, wanted: Mapping[Identity, Json]) -> Children:
        """The live children: those with the service's label, shared ones, and every object with a desired name.

        Args:
            namespace: namespace of the resource.
            found: the children with the service's label.
            wanted: the desired children.

        Raises:
            NameConflict: an object with the name of a required child belongs to another owner.
            WaitingForDeletion: such an object is being deleted.
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
        """Apply a child if it differs and return it; None if it is a helper object that was refused.

        Args:
            body: the desired child.
            live: the live child as it was read; None if it did not exist.

        Raises:
            NameConflict: an object of its name belongs to another owner.
            WaitingForDeletion: such an object is being deleted.
            Refused: the API server refuses the request.
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
        """Delete a child that is no longer desired, or leave it to the other services that share it.

        Raises:
            Refused: the API server refuses the request.
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
        """Add a note that becomes an Event."""
        self._more.append(note)

    def _note_refusal(self, child: Json, error: NameConflict | WaitingForDeletion | Refused) -> None:
        if child["kind"] not in HELPERS:
            raise error
        which = identity(child)
        self.refused[which] = PodProblem(
            _REASONS.get(type(error), Reason.REFUSED), f"{which.kind} {which.name}", str(error)
        )


def with_refusals(snapshot: Snapshot, refused: Mapping[Identity, PodProblem], warm_nodes: int) -> Snapshot:
    """The snapshot with the problems of helper objects that could not be written.

    Args:
        snapshot: the snapshot without these problems.
        refused: the problems, by helper object.
        warm_nodes: desired number of placeholder pods for spare workers.
    """
    by_kind = {child.kind: found for child, found in reversed([*refused.items()])}
    if preload := by_kind.get(DAEMON_SET.name):
        snapshot = replace(snapshot, preload=replace(snapshot.preload, refused=preload))
    if warm := by_kind.get(DEPLOYMENT.name):
        view = snapshot.warm or WarmView(warm_nodes, 0)
        snapshot = replace(snapshot, warm=replace(view, words=str(warm)))
    return snapshot
