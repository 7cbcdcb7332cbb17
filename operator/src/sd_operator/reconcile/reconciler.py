# SPDX-License-Identifier: Apache-2.0
"""Observe, decide, apply, report: one level-triggered pass over one resource.

The pass is the same for create, edit, child event, resync and restart. Every step starts from live objects, so a pass may
be interrupted anywhere and run again.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sd_operator import naming, status
from sd_operator.api import Resource, Status, parse_live, recorded_status
from sd_operator.api.status import Reason
from sd_operator.builders.preload import preload_images
from sd_operator.builders.token_secret import token_of, token_secret
from sd_operator.errors import (
    ClusterUnavailable,
    InvalidResource,
    KubeRayMissing,
    KubeRayTooOld,
    NameConflict,
    Refused,
    WaitingForDeletion,
)
from sd_operator.kube import (
    DAEMON_SET,
    DEPLOYMENT,
    NETWORK_POLICY,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
    SECRET,
    SERVICE,
    Cluster,
    ListedCluster,
)
from sd_operator.kube.own_writes import OwnWrites
from sd_operator.kube.ownership import belongs_to, conflict, fills_cache, is_preload, is_shared, owner
from sd_operator.metrics import Metrics
from sd_operator.naming import Key
from sd_operator.observe.observer import LiveChildren, Observer
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.preload_reader import DesiredImages
from sd_operator.reconcile.assessment import Assessor, Situation
from sd_operator.reconcile.child_writer import Children, ChildWriter, Identity, identity
from sd_operator.reconcile.desired import PRUNED_KINDS, desired
from sd_operator.reconcile.events import Note, replaced_in_place
from sd_operator.reconcile.image_pins import Pin, is_needed, pins
from sd_operator.reconcile.raycluster_writer import RayClusterWriter
from sd_operator.reconcile.reporter import Reporter
from sd_operator.reconcile.rollout import Rollout
from sd_operator.reconcile.rollout_gate import RolloutGate
from sd_operator.reconcile.staging import in_place, removes_head, replaces_in_place, staged
from sd_operator.settings import Settings

Json = dict[str, Any]


class Found(NamedTuple):
    """The live objects of a resource.

    Attributes:
        secret: the Secret with Ray's token.
        ray_clusters: the RayClusters that KubeRay created, with the labels of their RayService.
        needs_token: False if the Secret was not read, because it exists and no Ray pod is polled.
    """

    children: Children
    secret: Json | None
    ray_clusters: list[Json]
    needs_token: bool = True


class Applied(NamedTuple):
    """The result of an apply: the live children, Ray's token, the change on hold, and refused helper objects.

    `in_place`: replicas are replaced in place, although the spec lets new replicas start first.
    """

    children: Children
    token: str
    held: status.Held | None
    in_place: bool
    refused: dict[Identity, PodProblem]

    def situation(self, resource: Resource, ray_clusters: list[Json], asked: DesiredImages) -> Situation:
        """The live objects of the resource, without foreign objects that have the same labels."""
        own = {
            key: live
            for key, live in self.children.items()
            if is_shared(live) or belongs_to(live, resource.uid)
        }
        children = LiveChildren(
            own.get(Identity(RAY_SERVICE.name, resource.name)),
            tuple(filter(is_preload, own.values())),
            own.get(Identity(DEPLOYMENT.name, naming.warm(resource.name))),
        )
        return Situation(
            children, ray_clusters, self.token, asked, self.held, self.in_place, refused=self.refused
        )


@dataclass(frozen=True)
class Reconciler:
    """Reconciles one service per pass. Everything with an effect is an argument: client, observer, clock, token source, metrics.

    Attributes:
        own_writes: records each child that is written.
        rollout: limits the upgrades that the operator itself causes.
        untold: notes without an Event yet, because a step failed before.
        spares_token: read the Secret only if the pass depends on it.
    """

    cluster: Cluster
    settings: Settings
    observer: Observer
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    draw_token: Callable[[], str] = field(default=lambda: secrets.token_hex(32))
    metrics: Metrics = field(default_factory=Metrics)
    own_writes: OwnWrites = field(default_factory=OwnWrites)
    rollout: Rollout = field(default_factory=Rollout)
    untold: dict[Key, list[Note]] = field(default_factory=dict)
    spares_token: bool = False

    def reading(self, cluster: ListedCluster) -> "Reconciler":
        """The same reconciler for one pass over a service whose objects were listed before."""
        return replace(self, cluster=cluster, observer=self.observer.reading(cluster), spares_token=True)

    async def reconcile(self, key: Key) -> float | None:
        """Bring the children and the status of one resource in line with its spec.

        Returns:
            Seconds until the next pass if no event arrives before; None if events are enough.

        Raises:
            ClusterUnavailable: the API server is unavailable or overloaded; the queue retries.
        """
        live = await self.cluster.get(SERVICE, key.namespace, key.name)
        if live is None or "deletionTimestamp" in live["metadata"]:
            self.observer.forget(key)
            self.rollout.through(key)
            self.untold.pop(key, None)
            self.observer.preloads.shared.waits(key, waits=False)
            return None  # garbage collection deletes the children
        before, notes = recorded_status(live), self.untold.setdefault(key, [])
        assessor = Assessor(self.observer, self.clock)
        try:
            resource = parse_live(live)
            found = await self._read(resource)
            done = await self._apply(resource, found, before, notes)
            if ray_service := done.children.get(Identity(RAY_SERVICE.name, resource.name)):
                writer = RayClusterWriter(self.cluster, notes)
                await writer.adjust(ray_service, found.ray_clusters)
                await writer.remove_old(key, ray_service, found.ray_clusters)
            situation = done.situation(resource, found.ray_clusters, self._asked(resource))
            after, snapshot = await assessor.of_accepted(resource, situation, before)
            if done.held is None and not status.is_upgrading(after):
                self.rollout.through(key)
        except (
            InvalidResource,
            NameConflict,
            WaitingForDeletion,
            KubeRayMissing,
            KubeRayTooOld,
            Refused,
        ) as error:
            asked = None if isinstance(error, InvalidResource) else parse_live(live).spec
            after, snapshot = await assessor.of_refused(live, status.not_accepted(error), asked, before)
        self.observer.preloads.shared.waits(key, waits=status.lacks_images(after))
        reporter = Reporter(self.cluster, self.metrics, self.clock)
        await reporter.report(live, before, after, notes)
        self.untold.pop(key, None)
        reporter.measure(snapshot, before, after)
        return status.requeue_seconds(after)

    async def _read(self, resource: Resource) -> Found:
        """Read the live objects of a resource in parallel; reading them one by one would be most of a pass."""
        namespace, labels = resource.namespace, naming.labels(resource.name)
        needs_token = not self.spares_token or await self._needs_token(resource)
        daemon_sets, deployments, policy, ray_service, secret, ray_clusters = await asyncio.gather(
            self.cluster.list(DAEMON_SET, namespace, labels),
            self.cluster.list(DEPLOYMENT, namespace, labels),
            self.cluster.get(NETWORK_POLICY, namespace, naming.network_policy(resource.name)),
            self.cluster.get(RAY_SERVICE, namespace, resource.name),
            self._secret(resource) if needs_token else _nothing(),
            self.cluster.list(RAY_CLUSTER, namespace, labels),
        )
        children = [*daemon_sets, *deployments, *filter(None, (policy, ray_service))]
        return Found({identity(each): each for each in children}, secret, ray_clusters, needs_token)

    async def _secret(self, resource: Resource) -> Json | None:
        return await self.cluster.get(SECRET, resource.namespace, naming.token_secret(resource.name))

    async def _needs_token(self, resource: Resource) -> bool:
        """Whether the pass needs the token: for polls of Ray pods, or because the Secret must exist before the RayService."""
        pods = await self.cluster.list(POD, resource.namespace, naming.everything(resource.name))
        if any(naming.RAY_POD_LABEL in each["metadata"]["labels"] for each in pods):
            return True
        return await self.cluster.get(RAY_SERVICE, resource.namespace, resource.name) is None

    async def _apply(self, resource: Resource, found: Found, before: Status, notes: list[Note]) -> Applied:
        """Apply children that differ and delete own children that are no longer desired; a RayService may be on hold.

        Args:
            resource: the resource.
            found: its live objects.
            before: the recorded status.
            notes: receives a note of each write, even if a later write fails.
        """
        preloads = self.observer.preloads.shared
        writer = ChildWriter(self.cluster, preloads, self.own_writes, resource.uid, resource.name)
        try:
            return await self._bring(resource, found, before, writer)
        finally:
            notes += writer.notes()

    async def _bring(self, resource: Resource, found: Found, before: Status, writer: ChildWriter) -> Applied:
        wanted = {identity(body): body for body in desired(resource, self.settings)}
        children = await writer.owned(resource.namespace, found.children, wanted)
        token = await self._ensure_token(resource, found.secret) if found.needs_token else ""
        held, is_in_place = None, False
        for child, body in wanted.items():
            live = children.get(child)
            if child.kind == RAY_SERVICE.name:
                preloads = [children.get(each) for each, asked in wanted.items() if is_preload(asked)]
                fillers = [children.get(each) for each, asked in wanted.items() if fills_cache(asked)]
                held = await self._held(resource, body, live, before, preloads=preloads, fillers=fillers)
                if held is not None:
                    continue
                body, is_in_place = await self._staged(resource, body, live, found.ray_clusters, before)  # noqa: PLW2901 - the part that may be applied now
            brought = await writer.bring(body, live)
            if brought is not None:
                children[child] = brought
        if is_in_place and not any(each.reason == Reason.REPLACING_IN_PLACE for each in before.conditions):
            writer.note(replaced_in_place(resource.spec.upgrade.surge_timeout_seconds))
        await self._prune(resource, found, wanted, children, writer)
        return Applied(children, token, held, is_in_place, writer.refused)

    async def _held(
        self,
        resource: Resource,
        body: Json,
        live: Json | None,
        before: Status,
        *,
        preloads: list[Json | None],
        fillers: list[Json | None],
    ) -> status.Held | None:
        """The hold on a change of the RayService; None if it may be applied now."""
        gate = RolloutGate(self.cluster, self.observer, self.rollout, self.clock)
        asked = self._asked(resource)
        held = await gate.held(resource, body, live, before, preloads=preloads, asked=asked)
        return held or await gate.held_for_weights(resource, body, live, fillers)

    async def _staged(
        self, resource: Resource, wanted: Json, live: Json | None, ray_clusters: list[Json], before: Status
    ) -> tuple[Json, bool]:
        """The part of the RayService that may be applied now, and whether replicas are replaced in place."""
        pods = list[Json]()
        if removes_head(wanted, live):
            pods = await self.cluster.list(POD, resource.namespace, naming.everything(resource.name))
        text = wanted["spec"]["serveConfigV2"]
        is_in_place = replaces_in_place(resource, text, live, before, self.clock())
        body = in_place(wanted, resource.spec) if is_in_place else wanted
        return staged(body, live, ray_clusters, pods), is_in_place

    async def _prune(
        self,
        resource: Resource,
        found: Found,
        wanted: Mapping[Identity, Json],
        children: Children,
        writer: ChildWriter,
    ) -> None:
        """Delete own children that are no longer desired.

        A DaemonSet that keeps an image which still runs stays until another DaemonSet keeps this image.
        """
        unwanted = {
            child: live
            for child, live in children.items()
            if child not in wanted and child.kind in PRUNED_KINDS and _is_ours(live, resource)
        }
        running, holding = frozenset[Pin](), list[Json]()
        if any(map(is_preload, unwanted.values())):
            ray_service = Identity(RAY_SERVICE.name, resource.name)
            bodies = [wanted[ray_service], *filter(None, (found.children.get(ray_service),))]
            running = pins(resource.spec, self.settings, bodies, found.ray_clusters)
        if running:
            there = [children[each] for each, body in wanted.items() if is_preload(body) and each in children]
            holding = await self.observer.preloads.holding(there, self._asked(resource))
        for child, live in unwanted.items():
            if not (is_preload(live) and is_needed(live, running, holding)):
                del children[child]
                await writer.drop(live)

    async def _ensure_token(self, resource: Resource, live: Json | None) -> str:
        """Create the Secret with Ray's token if there is none; an existing Secret is never written.

        Returns:
            The stored token, even if another writer was faster.
        """
        name = naming.token_secret(resource.name)
        if live is None:
            token = self.draw_token()
            if await self.cluster.create(token_secret(resource, token), naming.FIELD_MANAGER) is not None:
                return token
            live = await self.cluster.get(SECRET, resource.namespace, name)
        if live is None:
            raise ClusterUnavailable(f"Secret {name} was created and deleted during the pass")
        if not belongs_to(live, resource.uid):
            raise conflict(live, SECRET.name, resource.name)
        return token_of(live)

    def _asked(self, resource: Resource) -> DesiredImages:
        return DesiredImages(resource.spec, preload_images(resource.spec, self.settings))


async def _nothing() -> None:
    """A placeholder for a read that is not needed."""


def _is_ours(live: Json, resource: Resource) -> bool:
    """Whether the pass may delete or leave a child: the resource controls it, or is one of its users."""
    return belongs_to(live, resource.uid) if is_shared(live) else owner(live) == resource.uid
