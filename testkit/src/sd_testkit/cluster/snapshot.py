# SPDX-License-Identifier: Apache-2.0
"""A snapshot of every object that KubeRay and its pods consist of."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from sd_testkit.cluster.api_server import ApiServer
from sd_testkit.json_types import Json

RAY_PODS = "ray.io/is-ray-node=yes"
_BY_KUBERAY = "ray.io/originated-from-crd=RayService"


@dataclass(frozen=True)
class Snapshot:
    """Live objects as the API server listed them, within a moment of each other."""

    ray_services: list[Json]
    ray_clusters: list[Json]
    pods: list[Json]
    services: list[Json]
    slices: list[Json]

    def pods_of(self, cluster: Json) -> list[Json]:
        """Return the Ray pods of a RayCluster. Pods that are being deleted are included."""
        return self._pods.get(_place(cluster), [])

    def clusters_of(self, ray_service: Json) -> list[Json]:
        """Return the RayClusters that a RayService owns."""
        return self._clusters.get(ray_service["metadata"]["uid"], [])

    def service(self, namespace: str, name: str) -> Json | None:
        """Return a Service by name."""
        return self._services.get((namespace, name))

    def ready_endpoints(self, namespace: str, service: str) -> int:
        """Return the ready pods behind a Service, according to its EndpointSlices."""
        ready = {
            endpoint["targetRef"]["uid"]
            for each in self.slices
            if each["metadata"]["namespace"] == namespace
            and each["metadata"]["labels"].get("kubernetes.io/service-name") == service
            for endpoint in each.get("endpoints") or []
            if endpoint.get("conditions", {}).get("ready") and endpoint.get("targetRef")
        }
        return len(ready)

    def ray_service_of(self, cluster: Json) -> Json | None:
        """Return the RayService that owns a RayCluster."""
        owners = {owner["uid"] for owner in cluster["metadata"].get("ownerReferences", [])}
        return next((each for each in self.ray_services if each["metadata"]["uid"] in owners), None)

    @cached_property
    def _pods(self) -> dict[tuple[str, str], list[Json]]:
        """Pods by namespace and name of their RayCluster."""
        found = defaultdict[tuple[str, str], list[Json]](list)
        for pod in self.pods:
            metadata = pod["metadata"]
            found[metadata["namespace"], metadata["labels"].get("ray.io/cluster", "")].append(pod)
        return found

    @cached_property
    def _clusters(self) -> dict[str, list[Json]]:
        """RayClusters by the UID of their owner."""
        found = defaultdict[str, list[Json]](list)
        for each in self.ray_clusters:
            for owner in each["metadata"].get("ownerReferences", []):
                found[owner["uid"]].append(each)
        return found

    @cached_property
    def _services(self) -> dict[tuple[str, str], Json]:
        return {_place(each): each for each in self.services}


async def look(server: ApiServer) -> Snapshot:
    """List all objects and return the snapshot."""
    return Snapshot(
        *await asyncio.gather(
            server.list_all("RayService"),
            server.list_all("RayCluster"),
            server.list_all("Pod", label_selector=RAY_PODS),
            server.list_all("Service"),  # The labels of clusters and Services have nothing in common.
            server.list_all("EndpointSlice", label_selector=_BY_KUBERAY),
        )
    )


def is_ready(pod: Json) -> bool:
    """Return whether a pod receives requests: its Ready condition is True, and the pod is not being deleted."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return "deletionTimestamp" not in pod["metadata"] and any(
        each["type"] == "Ready" and each["status"] == "True" for each in conditions
    )


def has_ended(pod: Json) -> bool:
    """Return whether a pod has ended for good."""
    return (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}


def by_group(pods: list[Json]) -> dict[str, list[Json]]:
    """Return the pods by group. The group of the head is `headgroup`."""
    groups: dict[str, list[Json]] = defaultdict(list)
    for pod in pods:
        groups[pod["metadata"]["labels"].get("ray.io/group", "")].append(pod)
    return groups


def _place(live: Json) -> tuple[str, str]:
    return live["metadata"]["namespace"], live["metadata"]["name"]
