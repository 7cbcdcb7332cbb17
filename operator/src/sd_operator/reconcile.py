# SPDX-License-Identifier: Apache-2.0
"""Observe, decide, apply, report: one level-triggered pass over one resource.

It is the same pass for create, edit, child event, resync and restart; every step starts from live objects, so it
may be cut off anywhere and run again.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sd_operator import cold_start, naming, status
from sd_operator.api import KIND, Resource, Status, parse_live, recorded_status
from sd_operator.api.resource import API_VERSION
from sd_operator.api.status import ColdStart
from sd_operator.builders.pod import image
from sd_operator.builders.preload import preload_images
from sd_operator.builders.token_secret import token_of, token_secret
from sd_operator.cluster import (
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
    kind_of,
)
from sd_operator.desired import PRUNED_KINDS, desired
from sd_operator.drift import differs
from sd_operator.echoes import Echoes
from sd_operator.errors import (
    ClusterUnavailable,
    InvalidResource,
    KubeRayMissing,
    KubeRayTooOld,
    NameConflict,
    Refused,
    SdServiceError,
)
from sd_operator.events import Note, adjusted, changes, event, flips
from sd_operator.intent import of_ray_service
from sd_operator.live_cluster import live_patch
from sd_operator.metrics import Metrics
from sd_operator.naming import Key
from sd_operator.observed import Observed
from sd_operator.observer import Children as LiveChildren
from sd_operator.observer import Observer
from sd_operator.ownership import belongs_to, owner
from sd_operator.preload_gate import Hold, asks_for_images, hold
from sd_operator.preload_reader import Asked
from sd_operator.rollout import Rollout, concerns
from sd_operator.settings import Settings
from sd_operator.status.preload import waiting_for_images
from sd_operator.status.upgrading import waiting_for_others
from sd_operator.status.verdict import Verdict

Json = dict[str, Any]

logger = logging.getLogger(__name__)


class Identity(NamedTuple):
    """Which child of a resource an object is."""

    kind: str
    name: str


Children = dict[Identity, Json]
LISTED = {kind.name: kind for kind in (DAEMON_SET, DEPLOYMENT)}
"""Kinds of children that are found by their labels; the others are asked for by name."""


class Found(NamedTuple):
    """What there is of a resource.

    Attributes:
        secret: the Secret with Ray's token.
        ray_clusters: made by KubeRay, which gives them the labels of their RayService.
        needs_token: False where the Secret was not read, since it is there and no pod of Ray is asked anything.
    """

    children: Children
    secret: Json | None
    ray_clusters: list[Json]
    needs_token: bool = True


class Applied(NamedTuple):
    """The children after they were applied, what was done, Ray's token, and why the RayService was left as it was."""

    children: Children
    notes: list[Note]
    token: str
    held: status.Held | None

    def live(self, resource: Resource) -> LiveChildren:
        """Our children by what they are for; others may carry our labels."""
        own = {key: live for key, live in self.children.items() if belongs_to(live, resource.uid)}
        return LiveChildren(
            own.get(Identity(RAY_SERVICE.name, resource.name)),
            tuple(live for key, live in own.items() if key.kind == DAEMON_SET.name),
            own.get(Identity(DEPLOYMENT.name, naming.warm(resource.name))),
        )


@dataclass(frozen=True)
class Reconciler:
    """Everything that acts, as arguments: the cluster, the settings, what it observes with, the clock, the source of tokens, the metrics.

    Attributes:
        echoes: told of each child that is written.
        rollout: who may have another cluster because of the operator.
        spares_token: the Secret is read only where the pass depends on it.
    """

    cluster: Cluster
    settings: Settings
    observer: Observer
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    draw_token: Callable[[], str] = field(default=lambda: secrets.token_hex(32))
    metrics: Metrics = field(default_factory=Metrics)
    echoes: Echoes = field(default_factory=Echoes)
    rollout: Rollout = field(default_factory=Rollout)
    spares_token: bool = False

    def reading(self, cluster: ListedCluster) -> "Reconciler":
        """The same, for one pass over the service of which lists have shown what there is."""
        return replace(self, cluster=cluster, observer=self.observer.reading(cluster), spares_token=True)

    async def reconcile(self, key: Key) -> float | None:
        """Bring the children and the status of one resource in line with its spec.

        Returns:
            Seconds after which to look again although nothing is heard; None where events tell all there is.

        Raises:
            ClusterUnavailable: the API server is away or busy; the queue comes again.
        """
        live = await self.cluster.get(SERVICE, key.namespace, key.name)
        if live is None or "deletionTimestamp" in live["metadata"]:
            self.observer.forget(key)
            self.rollout.through(key)
            return None  # garbage collection takes the children
        before = recorded_status(live)
        try:
            resource = parse_live(live)
            found = await self._read(resource)
            done = await self._apply(resource, found, before)
            notes = done.notes + await self._adjust(resource, done.children, found.ray_clusters)
            after, observed = await self._status(resource, done, found.ray_clusters, before)
            if done.held is None and not status.is_upgrading(after):
                self.rollout.through(key)
        except (InvalidResource, NameConflict, KubeRayMissing, KubeRayTooOld, Refused) as error:
            notes = []
            after, observed = await self._refused(live, error, before)
        await self._report(live, before, after, notes)
        self._measure(observed, before.cold_start, after.cold_start)
        return status.look_again_seconds(after)

    async def _read(self, resource: Resource) -> Found:
        """What there is of a resource, all asked for at once; waiting for one answer after the other is most of a pass."""
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
        return Found({_identity(each): each for each in children}, secret, ray_clusters, needs_token)

    async def _secret(self, resource: Resource) -> Json | None:
        return await self.cluster.get(SECRET, resource.namespace, naming.token_secret(resource.name))

    async def _needs_token(self, resource: Resource) -> bool:
        """Whether there are pods of Ray, which are asked with the token; or no RayService yet, before which it is made."""
        pods = await self.cluster.list(POD, resource.namespace, naming.everything(resource.name))
        if any(naming.RAY_POD_LABEL in each["metadata"]["labels"] for each in pods):
            return True
        return await self.cluster.get(RAY_SERVICE, resource.namespace, resource.name) is None

    async def _apply(self, resource: Resource, found: Found, before: Status) -> Applied:
        """Apply what differs, delete what is ours and no longer wanted; a RayService may have to wait."""
        wanted = {_identity(body): body for body in desired(resource, self.settings)}
        children = await self._owned(resource, found.children, wanted)
        token = await self._ensure_token(resource, found.secret) if found.needs_token else ""
        applied, held = list[Json](), None
        for identity, body in wanted.items():
            live = children.get(identity)
            if identity.kind == RAY_SERVICE.name:
                preloads = [children[each] for each in wanted if each.kind == DAEMON_SET.name]
                held = await self._held(resource, body, live, before, preloads)
                if held is not None:
                    continue
            if live is None or differs(body, live, naming.FIELD_MANAGER):
                children[identity] = after = await self.cluster.apply(body, naming.FIELD_MANAGER)
                self.echoes.wrote(after["metadata"])
                if (
                    live is None
                    or after["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]
                ):
                    applied.append(body)
        unwanted = [
            children.pop(identity)
            for identity, live in list(children.items())
            if identity not in wanted and identity.kind in PRUNED_KINDS and owner(live) == resource.uid
        ]
        for live in unwanted:
            await self.cluster.delete(kind_of(live), live)
        return Applied(children, changes(applied, unwanted), token, held)

    async def _held(
        self, resource: Resource, wanted: Json, live: Json | None, before: Status, preloads: list[Json]
    ) -> status.Held | None:
        """Why a RayService is left as it is; None where it is not. Its turn comes first, then its image."""
        key = Key(resource.namespace, resource.name)
        if concerns(resource, wanted, live, before) and (ahead := self.rollout.ahead(key)):
            return _left_alone(live, waiting_for_others(ahead))
        if asks_for_images(resource.spec, wanted, live):
            state = await self.observer.preloads.read_now(key, preloads)
            if (found := hold(resource.spec, state, self.clock())) is not None:
                return _left_alone(live, waiting_for_images(found), found)
        return None

    async def _owned(self, resource: Resource, found: Children, wanted: Iterable[Identity]) -> Children:
        """Live children: those that carry our label, and whatever has a name that we want and carries it no more.

        Raises:
            NameConflict: an object of a wanted name is not ours.
        """
        children = dict(found)
        for identity in wanted:
            if identity not in children and identity.kind in LISTED:
                live = await self.cluster.get(LISTED[identity.kind], resource.namespace, identity.name)
                if live is not None:
                    children[identity] = live
            if identity in children and not belongs_to(children[identity], resource.uid):
                raise NameConflict(
                    f"{identity.kind} {identity.name} exists and belongs to someone else; it is left alone:"
                    " delete or rename it, or give this service another name"
                )
        return children

    async def _ensure_token(self, resource: Resource, live: Json | None) -> str:
        """Create the Secret with Ray's token where there is none; an existing one is never written. Return the token."""
        name = naming.token_secret(resource.name)
        if live is None:
            token = self.draw_token()
            await self.cluster.create(token_secret(resource, token), naming.FIELD_MANAGER)
            return token
        if not belongs_to(live, resource.uid):
            raise NameConflict(f"Secret {name} exists and belongs to someone else; delete or rename it")
        return token_of(live)

    async def _adjust(self, resource: Resource, children: Children, ray_clusters: list[Json]) -> list[Note]:
        """Patch bounds and tolerations into running RayClusters: KubeRay itself never does.

        Raises:
            ClusterUnavailable: a RayCluster changed under our hands.
        """
        ray_service = children.get(Identity(RAY_SERVICE.name, resource.name))
        notes = list[Note]()
        if ray_service is None:
            return notes
        for live in ray_clusters:
            if owner(live) != ray_service["metadata"]["uid"] or "deletionTimestamp" in live["metadata"]:
                continue
            operations = live_patch(ray_service["spec"]["rayClusterConfig"], live)
            if not operations:
                continue
            if await self.cluster.patch(RAY_CLUSTER, live, operations, naming.FIELD_MANAGER) is None:
                raise ClusterUnavailable(f"RayCluster {live['metadata']['name']} changed meanwhile")
            notes.append(adjusted(live, operations))
        return notes

    async def _status(
        self, resource: Resource, done: Applied, ray_clusters: list[Json], before: Status
    ) -> tuple[Status, Observed]:
        """The status that the children, their pods and Ray's answers amount to; and these."""
        key, live = Key(resource.namespace, resource.name), done.live(resource)
        asked = Asked(resource.spec, preload_images(resource.spec, self.settings))
        observed = await self.observer.look(key, live, ray_clusters, done.token, asked)
        reference, now = image(resource.spec, self.settings), self.clock()
        return await self._explained(
            key, observed, lambda seen: status.compute(resource, seen, reference, before, now, held=done.held)
        )

    async def _refused(self, live: Json, error: SdServiceError, before: Status) -> tuple[Status, Observed]:
        """The status where the spec cannot be acted on: that, and how what runs is doing."""
        metadata, now = live["metadata"], self.clock()
        key = Key(metadata["namespace"], metadata["name"])
        asked = None if isinstance(error, InvalidResource) else parse_live(live).spec
        refusal = status.Refusal(key, metadata["generation"], status.not_accepted(error), asked)
        try:
            running = await self.observer.running(key, metadata["uid"])
        except Refused as hidden:
            return status.unseen(refusal, str(hidden), before, now), Observed()
        if running is None:
            return status.refused(refusal, None, before, now), Observed()
        intent, observed = running
        return await self._explained(
            key, observed, lambda seen: status.refused(refusal, (intent, seen), before, now)
        )

    async def _explained(
        self, key: Key, observed: Observed, compute: Callable[[Observed], Status]
    ) -> tuple[Status, Observed]:
        """The status. Pods that end and are replaced leave no trace but Events: those are read where nothing else tells."""
        after = compute(observed)
        if not status.is_unexplained(after):
            return after, observed
        observed = observed.with_events(await self.observer.events(key.namespace, observed), self.clock())
        return compute(observed), observed

    async def _report(self, live: Json, before: Status, after: Status, notes: list[Note]) -> None:
        """Write the status if it changed, and an Event for each change."""
        if after != before:
            await self.cluster.apply_status(_status_body(live, after), naming.STATUS_FIELD_MANAGER)
        for note in [*notes, *flips(before, after)]:
            metadata = live["metadata"]
            logger.info("%s/%s: %s", metadata["namespace"], metadata["name"], note.message)
            await self._tell(event(note, live, self.clock()))

    def _measure(self, observed: Observed, before: ColdStart | None, after: ColdStart | None) -> None:
        """Count each start that has ended, once: those that the status on record did not know."""
        for start in cold_start.news(observed, before, self.clock()):
            self.metrics.started(start)
        if after is None or after.first_picture_seconds is None:
            return
        if before is None or before.worker != after.worker or before.first_picture_seconds is None:
            self.metrics.drew(after.first_picture_seconds)

    async def _tell(self, body: Json) -> None:
        """Create an Event; one that is refused (a full quota, a namespace on its way out) is not worth a retry."""
        try:
            await self.cluster.create(body, naming.FIELD_MANAGER)
        except Refused as error:
            logger.debug("%s", error)


async def _nothing() -> None:
    """Stands for a read that is not needed."""


def _left_alone(live: Json | None, why: Verdict, hold: Hold | None = None) -> status.Held:
    return status.Held(why, of_ray_service(live, preloads=True) if live else None, hold)


def _identity(body: Json) -> Identity:
    return Identity(body["kind"], body["metadata"]["name"])


def _status_body(live: Json, after: Status) -> Json:
    metadata = live["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        # The uid makes the write fail where the resource was deleted and made anew meanwhile.
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "status": after.model_dump(by_alias=True, exclude_none=True, mode="json"),
    }
