# SPDX-License-Identifier: Apache-2.0
"""What one pass over one service works on: the resource, the objects of its spec, and the live objects."""

import asyncio
from dataclasses import dataclass

from sd_operator import naming
from sd_operator.api import Resource, Status
from sd_operator.builders.preload import preload_images
from sd_operator.json_types import Json
from sd_operator.kube import (
    DAEMON_SET,
    DEPLOYMENT,
    NETWORK_POLICY,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
    SECRET,
    Cluster,
)
from sd_operator.kube.own_writes import OwnWrites
from sd_operator.kube.ownership import belongs_to, fills_cache, is_preload, is_shared, owner
from sd_operator.kube.preload_sharing import SharedPreloads
from sd_operator.naming import Key
from sd_operator.observe.observer import LiveChildren
from sd_operator.observe.preload_reader import DesiredImages
from sd_operator.reconcile.child_writer import Children, ChildWriter, Identity, identity
from sd_operator.reconcile.desired import PRUNED_KINDS, desired
from sd_operator.settings import Settings


@dataclass
class Scope:
    """One pass over one service.

    Attributes:
        resource: the service.
        before: its status on record.
        images: the images that its spec names.
        desired: the objects of its spec.
        children: its live children; an object that the pass writes replaces the one that was read.
        ray_clusters: its live RayClusters, which KubeRay makes.
        secret: the live Secret with Ray's token, None where there is none or where it was not read.
        reads_token: False where no pod of Ray exists, so that the pass does without the token.
        writer: writes the children, and remembers what it wrote and what was refused.
        token: Ray's token, empty where it is not needed.
    """

    resource: Resource
    before: Status
    images: DesiredImages
    desired: Children
    children: Children
    ray_clusters: list[Json]
    secret: Json | None
    reads_token: bool
    writer: ChildWriter
    token: str = ""

    @property
    def key(self) -> Key:
        """The key of the service."""
        return Key(self.resource.namespace, self.resource.name)

    @property
    def ray_service(self) -> Json | None:
        """The live RayService."""
        return self.children.get(self.ray_service_identity)

    @property
    def ray_service_identity(self) -> Identity:
        """Which child the RayService is."""
        return Identity(RAY_SERVICE.name, self.resource.name)

    def preloads(self) -> list[Json | None]:
        """The live DaemonSet of each desired one that keeps images on nodes; None for one that could not be made."""
        return [self.children.get(each) for each, body in self.desired.items() if is_preload(body)]

    def cache_fillers(self) -> list[Json | None]:
        """The live DaemonSet of each desired one that fetches weights; None for one that could not be made."""
        return [self.children.get(each) for each, body in self.desired.items() if fills_cache(body)]

    def undesired(self) -> Children:
        """Live children that may be deleted: the service controls or shares them, and the spec has none of their name."""
        return {
            child: live
            for child, live in self.children.items()
            if child not in self.desired and child.kind in PRUNED_KINDS and self._may_go(live)
        }

    def remove(self, live: Json) -> None:
        """Take a child out, which is about to be deleted."""
        del self.children[identity(live)]

    def by_purpose(self) -> LiveChildren:
        """The live children by what they are for, without objects of others that carry the service's labels."""
        own = {
            child: live
            for child, live in self.children.items()
            if is_shared(live) or belongs_to(live, self.resource.uid)
        }
        return LiveChildren(
            own.get(self.ray_service_identity),
            tuple(filter(is_preload, own.values())),
            own.get(Identity(DEPLOYMENT.name, naming.warm(self.resource.name))),
        )

    def _may_go(self, live: Json) -> bool:
        uid = self.resource.uid
        return belongs_to(live, uid) if is_shared(live) else owner(live) == uid


@dataclass(frozen=True)
class ScopeReader:
    """Reads the live objects of a service.

    Attributes:
        shared: the DaemonSets that services share.
        own_writes: receives each child that is written.
        spares_token: the Secret is read only where the pass depends on it.
    """

    cluster: Cluster
    settings: Settings
    shared: SharedPreloads
    own_writes: OwnWrites
    spares_token: bool

    async def read(self, resource: Resource, before: Status) -> Scope:
        """The scope of a pass. All objects are read at once, since waiting for answers one by one is most of a pass.

        Raises:
            NameConflict: an object of a desired name belongs to somebody else, and the service cannot do without it.
            WaitingForDeletion: likewise, and that object is being deleted.
        """
        namespace, labels = resource.namespace, naming.labels(resource.name)
        reads_token = not self.spares_token or await self._needs_token(resource)
        daemon_sets, deployments, policy, ray_service, secret, ray_clusters = await asyncio.gather(
            self.cluster.list(DAEMON_SET, namespace, labels),
            self.cluster.list(DEPLOYMENT, namespace, labels),
            self.cluster.get(NETWORK_POLICY, namespace, naming.network_policy(resource.name)),
            self.cluster.get(RAY_SERVICE, namespace, resource.name),
            self._secret(resource) if reads_token else _nothing(),
            self.cluster.list(RAY_CLUSTER, namespace, labels),
        )
        found = [*daemon_sets, *deployments, *filter(None, (policy, ray_service))]
        wanted = {identity(body): body for body in desired(resource, self.settings)}
        writer = ChildWriter(self.cluster, self.shared, self.own_writes, resource.uid, resource.name)
        return Scope(
            resource=resource,
            before=before,
            images=DesiredImages(resource.spec, preload_images(resource.spec, self.settings)),
            desired=wanted,
            children=await writer.owned(namespace, {identity(each): each for each in found}, wanted),
            ray_clusters=ray_clusters,
            secret=secret,
            reads_token=reads_token,
            writer=writer,
        )

    async def _secret(self, resource: Resource) -> Json | None:
        return await self.cluster.get(SECRET, resource.namespace, naming.token_secret(resource.name))

    async def _needs_token(self, resource: Resource) -> bool:
        """Whether pods of Ray exist, which answer requests with the token only; or no RayService yet, which needs it first."""
        pods = await self.cluster.list(POD, resource.namespace, naming.everything(resource.name))
        if any(naming.RAY_POD_LABEL in each["metadata"]["labels"] for each in pods):
            return True
        return await self.cluster.get(RAY_SERVICE, resource.namespace, resource.name) is None


async def _nothing() -> None:
    """Stands for a read that is not needed."""
