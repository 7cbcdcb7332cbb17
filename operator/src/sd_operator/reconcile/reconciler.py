# SPDX-License-Identifier: Apache-2.0
"""One level-triggered pass over one service: observe, prepare, plan, apply, report.

Create, edit, child event, resync and restart run the same pass. Every step starts from live objects, so a pass may be cut
off anywhere and run again.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sd_operator import status
from sd_operator.api import Resource, Status, parse_live, recorded_status
from sd_operator.api.status import Reason
from sd_operator.errors import (
    InvalidResource,
    KubeRayMissing,
    KubeRayTooOld,
    NameConflict,
    Refused,
    WaitingForDeletion,
)
from sd_operator.json_types import Json
from sd_operator.kube import SERVICE, Cluster, ListedCluster
from sd_operator.kube.own_writes import OwnWrites
from sd_operator.metrics import Metrics
from sd_operator.naming import Key
from sd_operator.observe.observer import Observer
from sd_operator.observe.snapshot import Snapshot
from sd_operator.reconcile.assessment import Assessor, Situation
from sd_operator.reconcile.events import Note, replaced_in_place
from sd_operator.reconcile.plan import Plan, Planner
from sd_operator.reconcile.ray_token import ensure_token
from sd_operator.reconcile.raycluster_writer import RayClusterWriter
from sd_operator.reconcile.reporter import Reporter
from sd_operator.reconcile.rollout import Rollout
from sd_operator.reconcile.scope import Scope, ScopeReader
from sd_operator.settings import Settings

_NOT_ACCEPTED = (InvalidResource, NameConflict, WaitingForDeletion, KubeRayMissing, KubeRayTooOld, Refused)
"""Errors that `Accepted` reports; any other one is the queue's, which tries again."""


@dataclass(frozen=True)
class Reconciler:
    """Everything that a pass acts with.

    Attributes:
        cluster: the API server.
        settings: of the operator.
        observer: reads what a status depends on.
        clock: the time, UTC.
        draw_token: makes a token for Ray's API.
        metrics: of the operator.
        own_writes: receives each child that is written.
        rollout: limits how many services get new pods because of the operator at a time.
        unreported: what was done and has no Event yet, since something failed before.
        spares_token: the Secret with Ray's token is read only where the pass depends on it.
    """

    cluster: Cluster
    settings: Settings
    observer: Observer
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    draw_token: Callable[[], str] = field(default=lambda: secrets.token_hex(32))
    metrics: Metrics = field(default_factory=Metrics)
    own_writes: OwnWrites = field(default_factory=OwnWrites)
    rollout: Rollout = field(default_factory=Rollout)
    unreported: dict[Key, list[Note]] = field(default_factory=dict)
    spares_token: bool = False

    def reading(self, cluster: ListedCluster) -> "Reconciler":
        """The same reconciler for one pass over a service whose objects are in lists already."""
        return replace(self, cluster=cluster, observer=self.observer.reading(cluster), spares_token=True)

    async def reconcile(self, key: Key) -> float | None:
        """Bring the children and the status of one resource in line with its spec.

        Returns:
            Seconds after which the next pass is due without an event; None where events suffice.

        Raises:
            ClusterUnavailable: the API server is away or busy; the queue runs the pass again.
        """
        live = await self.cluster.get(SERVICE, key.namespace, key.name)
        if live is None or "deletionTimestamp" in live["metadata"]:
            self._forget(key)
            return None  # garbage collection takes the children
        before, notes = recorded_status(live), self.unreported.setdefault(key, [])
        assessor = Assessor(self.observer, self.clock)
        try:
            resource = parse_live(live)
            scope = await self._observe(resource, before)
            plan = await self._act(scope, notes)
            after, snapshot = await self._assess(scope, plan, assessor)
        except _NOT_ACCEPTED as error:
            spec = None if isinstance(error, InvalidResource) else parse_live(live).spec
            after, snapshot = await assessor.of_refused(live, status.not_accepted(error), spec, before)
        self.observer.preloads.shared.waits(key, waits=status.lacks_images(after))
        await self._report(live, before, after, snapshot, notes)
        self.unreported.pop(key, None)
        return status.requeue_seconds(after)

    def _forget(self, key: Key) -> None:
        self.observer.forget(key)
        self.rollout.through(key)
        self.unreported.pop(key, None)
        self.observer.preloads.shared.waits(key, waits=False)

    async def _observe(self, resource: Resource, before: Status) -> Scope:
        """Read the live objects of the service."""
        shared = self.observer.preloads.shared
        reader = ScopeReader(self.cluster, self.settings, shared, self.own_writes, self.spares_token)
        return await reader.read(resource, before)

    async def _act(self, scope: Scope, notes: list[Note]) -> Plan:
        """Prepare, plan and apply; whatever was written is noted for Events, also where a later write fails."""
        planner = Planner(self.cluster, self.settings, self.observer, self.rollout, self.clock)
        try:
            await self._prepare(scope)
            plan = await planner.plan(scope)
            await self._apply(scope, plan)
        finally:
            notes += scope.writer.notes()
        if ray_service := scope.ray_service:
            writer = RayClusterWriter(self.cluster, notes)
            await writer.adjust(ray_service, scope.ray_clusters)
            await writer.remove_old(scope.key, ray_service, scope.ray_clusters)
        return plan

    async def _prepare(self, scope: Scope) -> None:
        """Apply what the RayService depends on: the token, and the helpers, whose state decides whether it waits."""
        if scope.reads_token:
            scope.token = await ensure_token(self.cluster, scope.resource, scope.secret, self.draw_token)
        for child, body in scope.desired.items():
            if child == scope.ray_service_identity:
                continue
            applied = await scope.writer.bring(body, scope.children.get(child))
            if applied is not None:
                scope.children[child] = applied

    async def _apply(self, scope: Scope, plan: Plan) -> None:
        """Apply the RayService unless it is on hold, then delete what is no longer desired."""
        writer, ray_service = scope.writer, scope.ray_service_identity
        if plan.apply is not None and (applied := await writer.bring(plan.apply, scope.ray_service)):
            scope.children[ray_service] = applied
        if plan.in_place and not any(
            each.reason == Reason.REPLACING_IN_PLACE for each in scope.before.conditions
        ):
            writer.note(replaced_in_place(scope.resource.spec.upgrade.surge_timeout_seconds))
        for live in plan.delete:
            scope.remove(live)
            await writer.drop(live)

    async def _assess(self, scope: Scope, plan: Plan, assessor: Assessor) -> tuple[Status, Snapshot]:
        """The status that the live objects amount to."""
        situation = Situation(
            scope.by_purpose(),
            scope.ray_clusters,
            scope.token,
            scope.images,
            plan.hold,
            plan.in_place,
            refused=scope.writer.refused,
        )
        after, snapshot = await assessor.of_accepted(scope.resource, situation, scope.before)
        if plan.hold is None and not status.is_upgrading(after):
            self.rollout.through(scope.key)
        return after, snapshot

    async def _report(
        self, live: Json, before: Status, after: Status, snapshot: Snapshot, notes: list[Note]
    ) -> None:
        """Write status and Events, and count what has started."""
        reporter = Reporter(self.cluster, self.metrics, self.clock)
        await reporter.report(live, before, after, notes)
        reporter.measure(snapshot, before, after)
