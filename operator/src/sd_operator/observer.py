# SPDX-License-Identifier: Apache-2.0
"""One look at everything that is live of a resource beside its children: pods, RayClusters, Ray's answers, Events."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sd_operator import naming
from sd_operator.api import Resource
from sd_operator.cluster import CORE_EVENT, NODE, POD, RAY_CLUSTER, Cluster
from sd_operator.errors import Refused
from sd_operator.headroom import shortage
from sd_operator.observed import Observed, observe
from sd_operator.serve_reader import Place, ServeReader
from sd_operator.upgrade_state import active_cluster, pending_cluster, upgrade_state

Json = dict[str, Any]


@dataclass(frozen=True)
class Observer:
    """Reads, and writes nothing."""

    cluster: Cluster
    serve: ServeReader

    async def look(
        self,
        resource: Resource,
        ray_service: Json | None,
        daemon_sets: Iterable[Json],
        ray_clusters: list[Json],
        token: str,
    ) -> Observed:
        """Everything observed of a resource.

        Args:
            resource: whose.
            ray_service: its live RayService, None where there is none.
            daemon_sets: its live preload DaemonSets.
            ray_clusters: its live RayClusters.
            token: Ray's token.
        """
        labels = naming.everything(resource.name)
        pods = await self.cluster.list(POD, resource.namespace, labels)
        observed = observe(ray_service, pods, daemon_sets, ray_clusters)
        lacking = await self._shortage(resource, ray_service, ray_clusters)
        upgrade = upgrade_state(ray_service, ray_clusters, lacking)
        heads = ((name, observed.head(name)) for name in observed.clusters)
        places = [Place(resource.namespace, name, head.uid, token) for name, head in heads if head]
        key = naming.Key(resource.namespace, resource.name)
        return replace(observed, upgrade=upgrade, serve=await self.serve.read(key, places))

    async def _shortage(self, resource: Resource, ray_service: Json | None, ray_clusters: list[Json]) -> str:
        """What a second cluster lacks; unknown where we may not read nodes and the pods of others."""
        pending = pending_cluster(ray_service, ray_clusters)
        if pending is None or active_cluster(ray_service, ray_clusters) is None:
            return ""
        try:
            nodes, pods = await self.cluster.list(NODE, None), await self.cluster.list(POD, None)
        except Refused:
            return ""
        return shortage(resource.spec, pending["metadata"]["name"], nodes, pods)

    async def events(self, resource: Resource, observed: Observed) -> list[Json]:
        """Events about the RayClusters of a resource."""
        found = []
        for name in observed.clusters:
            fields = {"involvedObject.kind": RAY_CLUSTER.name, "involvedObject.name": name}
            found += await self.cluster.list(CORE_EVENT, resource.namespace, fields=fields)
        return found
