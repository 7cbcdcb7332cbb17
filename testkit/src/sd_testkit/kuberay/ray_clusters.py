# SPDX-License-Identifier: Apache-2.0
"""Reconcile a RayCluster once: its head Service, its pods, its status.

https://github.com/ray-project/kuberay v1.7.0, ray-operator/controllers/ray/raycluster_controller.go.
"""

import json
from collections.abc import Callable

from kubernetes.aio.client import ApiException

from sd_testkit.cluster.api_server import ApiServer
from sd_testkit.cluster.snapshot import Snapshot, by_group, has_ended
from sd_testkit.json_types import Json
from sd_testkit.kuberay.cluster_status import cluster_status, desired_workers
from sd_testkit.kuberay.objects import cluster_head_service, pod

_FORBIDDEN = 403


class RayClusters:
    """The part of KubeRay that creates pods and Services of RayClusters.

    Args:
        server: the API server.
        build: builds a pod of a cluster, by type of node (`head` or `worker`) and group.
        companions: the objects that a cluster needs besides its Service and pods.
    """

    def __init__(
        self,
        server: ApiServer,
        build: Callable[[Json, str, Json], Json] = pod,
        companions: Callable[[Json], list[Json]] = lambda _: [],
    ) -> None:
        self._server = server
        self._build = build
        self._companions = companions

    async def reconcile(self, cluster: Json, seen: Snapshot) -> None:
        """Create missing objects, remove pods that have ended, and write the status."""
        if "deletionTimestamp" in cluster["metadata"]:
            return  # The garbage collector deletes the pods of this cluster.
        service = cluster_head_service(cluster)
        place = service["metadata"]["namespace"], service["metadata"]["name"]
        if seen.service(*place) is None and await self._server.create(service) is not None:
            await self._tell(cluster, "CreatedService", "Created service", service)
        pods = seen.pods_of(cluster)
        if not pods:
            for each in self._companions(cluster):
                await self._server.create(each)
        failure = await self._pods(cluster, by_group(pods))
        status = cluster_status(cluster, pods, failure)
        if status != cluster.get("status"):
            await self._server.replace_status(cluster, status)

    async def _pods(self, cluster: Json, groups: dict[str, list[Json]]) -> tuple[str, str] | None:
        """Create and delete pods. Return reason and message if the API server refuses one."""
        heads = groups.get("headgroup", [])
        for each in heads:
            if has_ended(each):
                await self._remove(cluster, each, "DeletedHeadPod", "head")
        node_type = "Head"
        try:
            if not heads:
                await self._add(cluster, "head", cluster["spec"]["headGroupSpec"])
            node_type = "Worker"
            for group in cluster["spec"].get("workerGroupSpecs", []):
                await self._workers(cluster, group, groups.get(group["groupName"], []))
        except ApiException as error:
            if error.status != _FORBIDDEN:
                raise
            reason = f"FailedCreate{node_type}Pod"
            return reason, f"{reason}\n{json.loads(error.body or '{}').get('message', error.reason)}"
        return None

    async def _workers(self, cluster: Json, group: Json, pods: list[Json]) -> None:
        leaving = group.get("scaleStrategy", {}).get("workersToDelete", [])
        alive = []
        for each in pods:
            if has_ended(each) or each["metadata"]["name"] in leaving:
                if "deletionTimestamp" not in each["metadata"]:
                    await self._remove(cluster, each, "DeletedWorkerPod", "worker")
            elif "deletionTimestamp" not in each["metadata"]:
                alive.append(each)
        wanted = desired_workers(group)
        for _ in range(wanted - len(alive)):
            await self._add(cluster, "worker", group)

    async def _add(self, cluster: Json, node_type: str, group: Json) -> None:
        body = self._build(cluster, node_type, group)
        if await self._server.create(body) is not None:
            reason = f"Created{node_type.capitalize()}Pod"
            await self._tell(cluster, reason, f"Created {node_type} Pod", body)

    async def _remove(self, cluster: Json, live: Json, reason: str, node_type: str) -> None:
        await self._server.delete(live)
        await self._tell(cluster, reason, f"Deleted {node_type} Pod", live)

    async def _tell(self, cluster: Json, reason: str, what: str, about: Json) -> None:
        metadata = about["metadata"]
        await self._server.event(cluster, reason, f"{what} {metadata['namespace']}/{metadata['name']}")
