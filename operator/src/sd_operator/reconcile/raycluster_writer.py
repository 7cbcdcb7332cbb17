# SPDX-License-Identifier: Apache-2.0
"""Writes to RayClusters of KubeRay: patches bounds and tolerations of the current one, and deletes old ones."""

from dataclasses import dataclass

from sd_operator import naming
from sd_operator.errors import ClusterUnavailable
from sd_operator.json_types import Json
from sd_operator.kube import POD, RAY_CLUSTER, RAY_SERVICE, Cluster
from sd_operator.naming import Key
from sd_operator.observe.cluster_roles import lacks_a_node, old_clusters, removable, taking_config
from sd_operator.observe.snapshot import observe
from sd_operator.reconcile.events import Note, adjusted, removed
from sd_operator.reconcile.raycluster_patch import live_patch


@dataclass(frozen=True)
class RayClusterWriter:
    """Makes the changes to RayClusters that KubeRay does not make.

    Attributes:
        notes: receives a note of each write, for Events.
    """

    cluster: Cluster
    notes: list[Note]

    async def adjust(self, ray_service: Json, ray_clusters: list[Json]) -> None:
        """Patch bounds and tolerations of the RayCluster that receives the Serve config.

        Args:
            ray_service: the live RayService.
            ray_clusters: the live RayClusters of the service.

        Raises:
            ClusterUnavailable: a RayCluster changed meanwhile.
        """
        for live in taking_config(ray_service, ray_clusters):
            operations = live_patch(ray_service["spec"]["rayClusterConfig"], live)
            if not operations:
                continue
            if await self.cluster.patch(RAY_CLUSTER, live, operations, naming.FIELD_MANAGER) is None:
                raise ClusterUnavailable(f"RayCluster {live['metadata']['name']} changed during the update")
            self.notes.append(adjusted(live, operations))

    async def remove_old(self, key: Key, seen: Json, ray_clusters: list[Json]) -> None:
        """Delete RayClusters that no request can reach, and those whose capacity the next cluster needs.

        Args:
            key: the service.
            seen: its RayService, as the pass has read it.
            ray_clusters: its live RayClusters.
        """
        if not any(old_clusters(seen, ray_clusters)):
            return
        # Read after the clusters, so that a cluster that it does not name has not just been created.
        ray_service = await self.cluster.unlisted().get(RAY_SERVICE, key.namespace, key.name)
        if ray_service is None or ray_service["metadata"]["uid"] != seen["metadata"]["uid"]:
            return
        pods = await self.cluster.list(POD, key.namespace, naming.everything(key.name))
        needed = lacks_a_node(observe(ray_service, pods, ray_clusters))
        for live in removable(ray_service, ray_clusters, capacity_is_needed=needed):
            await self.cluster.delete(RAY_CLUSTER, live)
            self.notes.append(removed(live, capacity_is_needed=needed))
