# SPDX-License-Identifier: Apache-2.0
"""The roles of a service's RayClusters: which one receives the Serve config, and which ones may be deleted early (pure).

KubeRay deletes a cluster that is neither active nor pending only after `rayClusterDeletionDelaySeconds`. Until then its
pods keep their GPUs. The operator deletes two kinds of clusters earlier:

- A cluster that a further edit replaced before it ever served: no request has reached it.
- A cluster whose pods use the capacity that pods of the active or the pending cluster need. Its workers drain when they
  are deleted, so they finish the requests that they compute.

A cluster that scales to zero may have a request that waits for a replica. The operator leaves it to KubeRay's delay.
"""

from collections.abc import Iterable, Iterator

from sd_operator.api.status import Reason
from sd_operator.builders.fingerprint import runs_other_config
from sd_operator.json_types import Json
from sd_operator.kube.ownership import owner
from sd_operator.observe.snapshot import OldCluster, Snapshot


def old_clusters(ray_service: Json | None, ray_clusters: Iterable[Json]) -> Iterator[Json]:
    """RayClusters of a RayService that its status names neither as active nor as pending.

    The RayService must be read after the clusters: KubeRay writes the name of a cluster into the status before it creates
    the cluster.
    """
    if ray_service is None:
        return
    status = ray_service.get("status") or {}
    named = {(status.get(each) or {}).get("rayClusterName") for each in _IN_USE}
    for live in ray_clusters:
        if owner(live) == ray_service["metadata"]["uid"] and live["metadata"]["name"] not in named:
            yield live


def taking_config(ray_service: Json, ray_clusters: Iterable[Json]) -> list[Json]:
    """The one RayCluster that receives the Serve config from KubeRay; empty if there is none.

    This is the pending cluster if there is one. Otherwise it is the active cluster, unless a new cluster is about to be
    created. In that case the active cluster keeps the replicas of its own config, so it keeps its own bounds too.
    """
    status = ray_service.get("status") or {}
    active, pending = ((status.get(each) or {}).get("rayClusterName") for each in _IN_USE)
    by_name = {each["metadata"]["name"]: each for each in ray_clusters}
    live = by_name.get(pending or active or "")
    if (
        live is None
        or owner(live) != ray_service["metadata"]["uid"]
        or "deletionTimestamp" in live["metadata"]
    ):
        return []
    makes_another = (ray_service["spec"].get("upgradeStrategy") or {}).get("type") != _NEVER
    if not pending and makes_another and runs_other_config(ray_service, live):
        return []
    return [live]


def with_pods(
    ray_service: Json | None, ray_clusters: Iterable[Json], pods: Iterable[Json]
) -> tuple[OldCluster, ...]:
    """The old clusters that still have pods, and when the last pod will be gone.

    Args:
        ray_service: the live RayService; None if there is none.
        ray_clusters: the live RayClusters of the service.
        pods: the live pods of the service.
    """
    found = []
    pods = [each["metadata"] for each in pods]
    for live in old_clusters(ray_service, ray_clusters):
        name = live["metadata"]["name"]
        mine = [each for each in pods if (each.get("labels") or {}).get("ray.io/cluster") == name]
        ends = [each.get("deletionTimestamp", "") for each in mine]  # includes the pod's grace period
        if mine:
            found.append(OldCluster(name, len(mine), max(ends) if all(ends) else ""))
    return tuple(found)


def lacks_a_node(snapshot: Snapshot) -> bool:
    """Whether a pod of the active or the pending cluster finds no node."""
    return any(
        pod.cluster in snapshot.clusters and pod.problem and pod.problem.reason is Reason.UNSCHEDULABLE
        for pod in snapshot.pods
    )


def removable(ray_service: Json, ray_clusters: Iterable[Json], *, capacity_is_needed: bool) -> Iterator[Json]:
    """Old clusters that may be deleted now, before KubeRay's delay has passed.

    Args:
        ray_service: the RayService, read after the clusters.
        ray_clusters: all RayClusters of the service.
        capacity_is_needed: pods of the active or the pending cluster find no node.
    """
    if (ray_service["spec"].get("upgradeStrategy") or {}).get("type") == _IN_STEPS:
        return  # the pending cluster receives requests before it is the active one
    ray_clusters = list(ray_clusters)
    status = ray_service.get("status") or {}
    active = (status.get("activeServiceStatus") or {}).get("rayClusterName")
    serving = next((each for each in ray_clusters if each["metadata"]["name"] == active), None)
    if not active and status.get("numServeEndpoints", 0):
        return  # a cluster serves, and the status does not name it
    for live in old_clusters(ray_service, ray_clusters):
        if "deletionTimestamp" in live["metadata"]:
            continue
        never_served = not active or (serving is not None and _created(live) > _created(serving))
        if never_served or (capacity_is_needed and not _may_hold_requests(live)):
            yield live


def _may_hold_requests(live: Json) -> bool:
    groups = (live.get("spec") or {}).get("workerGroupSpecs") or []
    return all(group.get("minReplicas", 0) == 0 for group in groups)


def _created(live: Json) -> str:
    return str(live["metadata"].get("creationTimestamp", ""))


_IN_USE = ("activeServiceStatus", "pendingServiceStatus")
_IN_STEPS, _NEVER = "NewClusterWithIncrementalUpgrade", "None"
