# SPDX-License-Identifier: Apache-2.0
"""Workers and replicas, counted from what was observed (pure)."""

from sd_operator.api.status import ReplicaStatus, WorkerStatus
from sd_operator.observe.application import known
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.observe.snapshot import OldCluster, Snapshot, pods_of


def serving_cluster(snapshot: Snapshot) -> str:
    """The RayCluster that requests reach; before the first one serves, the one coming up."""
    view = snapshot.ray_service
    return (view.active or view.pending) if view else ""


def kept_room(snapshot: Snapshot) -> str:
    """What RayClusters that were replaced still hold, as sentences that follow others; empty where they hold nothing."""
    return "".join(map(_kept, snapshot.old_clusters))


def _kept(old: OldCluster) -> str:
    pods, finish = ("1 pod", "finishes its") if old.pods == 1 else (f"{old.pods} pods", "finish their")
    kept = f" RayCluster {old.name}, which was replaced, still has {pods}"
    if old.until:
        return f"{kept} that {finish} requests, until {old.until} at the latest."
    return f"{kept}; KubeRay deletes it rayClusterDeletionDelaySeconds after it stopped serving."


def workers(effective: EffectiveSpec, snapshot: Snapshot) -> tuple[WorkerStatus, ...]:
    """Workers of each group, in the cluster that serves or is about to."""
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
    """Replicas as Ray counts them; where Ray cannot be asked, as many as the workers hold."""
    application = known(snapshot, serving_cluster(snapshot))
    low, high = effective.low, effective.high
    if effective.suspend:
        ready = desired = low = 0
    elif application.counted:
        ready, desired = application.model, application.target
    else:
        ready, desired = _held(effective, snapshot)
    return ReplicaStatus(
        ready=ready, desired=desired, min=low, max=high, summary=f"{ready}/{desired} ({low}-{high})"
    )


def _held(effective: EffectiveSpec, snapshot: Snapshot) -> tuple[int, int]:
    """Replicas by the workers that hold them: each worker is filled before another is asked for."""
    view = snapshot.ray_service
    by_group = {each.group: each for each in workers(effective, snapshot)}
    running = view is not None and bool(view.active) and view.active_application.status in {"RUNNING", ""}
    ready = sum(by_group[name].ready * count for name, count in effective.groups.items()) if running else 0
    asked = sum(by_group[name].desired * count for name, count in effective.groups.items())
    desired = min(max(asked, effective.low), effective.high)
    return min(ready, desired), desired
