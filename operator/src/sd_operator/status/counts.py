# SPDX-License-Identifier: Apache-2.0
"""Counts of workers and replicas for the status (pure)."""

from sd_operator.api.status import ReplicaStatus, WorkerStatus
from sd_operator.observe.application import known
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.observe.snapshot import OldCluster, Snapshot, pods_of


def serving_cluster(snapshot: Snapshot) -> str:
    """Name of the RayCluster that requests reach; the pending one before the first cluster serves."""
    view = snapshot.ray_service
    return (view.active or view.pending) if view else ""


def kept_room(snapshot: Snapshot) -> str:
    """Sentences about replaced RayClusters that still have pods, to append to a message; empty if there are none."""
    return "".join(map(_kept, snapshot.old_clusters))


def _kept(old: OldCluster) -> str:
    pods, finish = ("1 pod", "finishes its") if old.pods == 1 else (f"{old.pods} pods", "finish their")
    kept = f" The replaced RayCluster {old.name} still has {pods}"
    if old.until:
        return f"{kept} that {finish} requests, until {old.until} at the latest."
    return f"{kept}; KubeRay deletes the cluster rayClusterDeletionDelaySeconds after it stopped serving."


def workers(effective: EffectiveSpec, snapshot: Snapshot) -> tuple[WorkerStatus, ...]:
    """Workers of each group in the RayCluster that serves, or that will serve first."""
    pods = pods_of(snapshot, serving_cluster(snapshot))
    return tuple(
        WorkerStatus(
            group=group,
            ready=sum(pod.ready for pod in pods if pod.group == group),
            desired=sum(pod.group == group for pod in pods),
        )
        for group in effective.groups
    )


def replicas(effective: EffectiveSpec, snapshot: Snapshot) -> ReplicaStatus:
    """Replicas as Ray counts them; an estimate from the workers if Ray's counts are unknown."""
    application = known(snapshot, serving_cluster(snapshot))
    low, high = effective.low, effective.high
    if effective.suspend:
        ready = desired = low = 0
    elif application.counted:
        ready, desired = application.model, application.target
    else:
        ready, desired = _estimated(effective, snapshot)
    return ReplicaStatus(
        ready=ready, desired=desired, min=low, max=high, summary=f"{ready}/{desired} ({low}-{high})"
    )


def _estimated(effective: EffectiveSpec, snapshot: Snapshot) -> tuple[int, int]:
    """Ready and desired replicas, estimated from the workers: Ray fills each worker before it requests another."""
    view = snapshot.ray_service
    by_group = {each.group: each for each in workers(effective, snapshot)}
    running = view is not None and bool(view.active) and view.active_application.status in {"RUNNING", ""}
    ready = sum(by_group[name].ready * count for name, count in effective.groups.items()) if running else 0
    requested = sum(by_group[name].desired * count for name, count in effective.groups.items())
    desired = min(max(requested, effective.low), effective.high)
    return min(ready, desired), desired
