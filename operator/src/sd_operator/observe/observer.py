# SPDX-License-Identifier: Apache-2.0
"""Reads the snapshot of one resource: pods, RayClusters, Ray's answers, the probe of the service, and Events."""

from collections.abc import Hashable
from dataclasses import dataclass, replace

from sd_operator import naming
from sd_operator.builders.token_secret import token_of
from sd_operator.errors import KubeRayMissing, Refused
from sd_operator.json_types import Json
from sd_operator.kube import (
    CORE_EVENT,
    DAEMON_SET,
    DEPLOYMENT,
    GATEWAY,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
    SECRET,
    Cluster,
)
from sd_operator.kube.ownership import belongs_to, is_preload, owner
from sd_operator.naming import Key
from sd_operator.observe import gateway, node_dependency
from sd_operator.observe.application import needs_probe
from sd_operator.observe.cluster_roles import with_pods
from sd_operator.observe.effective_spec import EffectiveSpec, moves_in_steps, of_ray_service
from sd_operator.observe.node_cache import NodeReader
from sd_operator.observe.node_dependency import NodeDependency
from sd_operator.observe.preload_reader import DesiredImages, PreloadReader
from sd_operator.observe.snapshot import Snapshot, observe
from sd_operator.observe.upgrade_progress import upgrade_state
from sd_operator.ray.probe_poller import Door, ProbePoller
from sd_operator.ray.serve_poller import ServePoller
from sd_operator.ray.serve_reader import DashboardTarget


@dataclass(frozen=True)
class LiveChildren:
    """The live children of a resource, and the preload DaemonSets that it shares; None for a missing child."""

    ray_service: Json | None
    daemon_sets: tuple[Json, ...] = ()
    warm: Json | None = None


@dataclass(frozen=True)
class Observer:
    """Reads snapshots and writes nothing.

    Attributes:
        serve: the last answers of dashboards; `probes` has the last answers of services.
        waits: whether a snapshot waits for new answers of Ray. A pass does not wait; it uses the last answers.
    """

    cluster: Cluster
    serve: ServePoller
    probes: ProbePoller
    nodes: NodeReader
    preloads: PreloadReader
    waits: bool = False

    def forget(self, key: Key) -> None:
        """Stop all polls for a resource that is deleted or has no RayService any more."""
        self.serve.forget(key)
        self.probes.forget(key)
        self.nodes.depends(key, None)

    async def snapshot(
        self,
        key: Key,
        children: LiveChildren,
        ray_clusters: list[Json],
        token: str,
        asked: DesiredImages | None,
    ) -> Snapshot:
        """The snapshot of a resource.

        Args:
            key: the resource.
            children: its live children.
            ray_clusters: its live RayClusters.
            token: Ray's token.
            asked: the desired images; None if the spec is refused.
        """
        ray_service = children.ray_service
        pods = await self._pods(key, children)
        snapshot = observe(ray_service, pods, ray_clusters, children.warm)
        by_name = {each["metadata"]["name"]: each for each in ray_clusters}
        upgrade = upgrade_state(ray_service, by_name.get(snapshot.active), pods)
        self.nodes.depends(key, _node_dependency(children.daemon_sets, asked))
        heads = ((name, snapshot.head(name)) for name in snapshot.clusters)
        targets = [
            DashboardTarget(key.namespace, name, head.uid, token, head.ready) for name, head in heads if head
        ]
        around = _around_ray(snapshot)
        seen = await self.serve.ask(key, targets) if self.waits else self.serve.seen(key, targets, around)
        snapshot = replace(snapshot, serve=seen.readings, silent=seen.silences)
        return replace(
            snapshot,
            answers=await self._answers(key, ray_service, snapshot, around),
            upgrade=upgrade,
            preload=await self.preloads.read(children.daemon_sets, pods, asked),
            gateway=await self._gateway(key, ray_service),
            old_clusters=with_pods(ray_service, ray_clusters, pods),
        )

    async def _pods(self, key: Key, children: LiveChildren) -> list[Json]:
        """All pods of a resource.

        Before KubeRay has processed the RayService, only pods of the operator's own children can exist.
        """
        is_seen = "status" in (children.ray_service or {})
        if not (is_seen or children.daemon_sets or children.warm):
            return []
        return await self.cluster.list(POD, key.namespace, naming.everything(key.name))

    async def running(self, key: Key, uid: str) -> tuple[EffectiveSpec, Snapshot] | None:
        """The state that an earlier spec left running, found without the current spec; None if there is no own RayService.

        Args:
            key: the resource.
            uid: uid of the resource.

        Raises:
            Refused: the operator may not read it.
        """
        try:
            ray_service = await self.cluster.get(RAY_SERVICE, key.namespace, key.name)
            ray_clusters = await self.cluster.list(RAY_CLUSTER, key.namespace, naming.labels(key.name))
        except KubeRayMissing:
            ray_service = None  # its objects were deleted together with the kind
        if ray_service is None or not belongs_to(ray_service, uid):
            self.forget(key)
            return None
        children = await self.children(key, uid, ray_service)
        snapshot = await self.snapshot(key, children, ray_clusters, await self.token(key, uid), None)
        return of_ray_service(ray_service, preloads=bool(children.daemon_sets)), snapshot

    async def children(self, key: Key, uid: str, ray_service: Json | None) -> LiveChildren:
        """The children of a resource, found without its spec.

        Args:
            key: the resource.
            uid: uid of the resource.
            ray_service: its RayService.
        """
        labels = naming.labels(key.name)
        daemon_sets = await self.cluster.list(DAEMON_SET, key.namespace, labels)
        deployments = await self.cluster.list(DEPLOYMENT, key.namespace, labels)
        warm = (
            each
            for each in deployments
            if each["metadata"]["name"] == naming.warm(key.name) and belongs_to(each, uid)
        )
        shared = (await self.preloads.shared.read(key.namespace)).values()
        preloads = (each for each in (*daemon_sets, *shared) if is_preload(each) and belongs_to(each, uid))
        return LiveChildren(ray_service, tuple(preloads), next(warm, None))

    async def token(self, key: Key, uid: str) -> str:
        """Ray's token; empty if the Secret is not ours or may not be read, so that KubeRay's reports are used."""
        try:
            secret = await self.cluster.get(SECRET, key.namespace, naming.token_secret(key.name))
        except Refused:
            return ""
        return token_of(secret) if secret and belongs_to(secret, uid) else ""

    async def _gateway(self, key: Key, ray_service: Json | None) -> str:
        """URL of the Gateway that KubeRay created for this RayService; empty if there is none or it may not be read."""
        if ray_service is None or not moves_in_steps(ray_service):
            return ""
        try:
            live = await self.cluster.get(GATEWAY, key.namespace, naming.gateway(key.name))
        except Refused:
            return ""
        ours = live is not None and owner(live) == ray_service["metadata"]["uid"]
        return gateway.url(live) if live is not None and ours else ""

    async def _answers(
        self, key: Key, ray_service: Json | None, snapshot: Snapshot, around: Hashable
    ) -> bool | None:
        """Whether the probe of the service shows that it can generate; None while the first answer is pending.

        While requests move in steps, each RayCluster has a Service of its own.
        """
        if not needs_probe(snapshot):
            self.probes.forget(key)
            return False
        in_steps = ray_service is not None and moves_in_steps(ray_service)
        door = Door(key.namespace, naming.serve_service(snapshot.active if in_steps else key.name))
        return await self.probes.ask(key, door) if self.waits else self.probes.seen(key, door, around)

    def reading(self, cluster: Cluster) -> "Observer":
        """The same observer for one pass that reads from this cluster client; shared objects are read as before."""
        return replace(self, cluster=cluster)

    async def events(self, namespace: str, snapshot: Snapshot) -> list[Json]:
        """Events about the RayClusters of a resource in this namespace; empty if they may not be read."""
        found = []
        for name in snapshot.clusters:
            fields = {"involvedObject.kind": RAY_CLUSTER.name, "involvedObject.name": name}
            try:
                found += await self.cluster.list(CORE_EVENT, namespace, fields=fields)
            except Refused:
                return []
        return found


def _node_dependency(daemon_sets: tuple[Json, ...], asked: DesiredImages | None) -> NodeDependency | None:
    """The node facts on which the state of the images depends; None if it depends on none."""
    if asked is not None and asked.spec.image_preload.mode == "External":
        return node_dependency.of_spec(asked.spec, asked.images)
    return node_dependency.of_daemon_sets(daemon_sets)


def _around_ray(snapshot: Snapshot) -> Hashable:
    """A value that changes when Ray's state may have changed; a new value leads to a poll of Ray."""
    pods = sorted((pod.uid, pod.ready, pod.running, pod.in_service) for pod in snapshot.pods)
    return hash((repr(snapshot.ray_service), tuple(pods)))
