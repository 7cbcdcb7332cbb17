# SPDX-License-Identifier: Apache-2.0
"""Workers and replicas, counted from what was observed (pure)."""

from sd_operator.api.status import ReplicaStatus, WorkerStatus
from sd_operator.observe.application import known
from sd_operator.observe.effective_spec import Intent
from sd_operator.observe.snapshot import Observed, OldCluster, pods_of


def serving_cluster(observed: Observed) -> str:
    """The RayCluster that requests reach; before the first one serves, the one coming up."""
    view = observed.ray_service
    return (view.active or view.pending) if view else ""


def kept_room(observed: Observed) -> str:
    """What RayClusters that were replaced still hold, as sentences that follow others; empty where they hold nothing."""
    return "".join(map(_kept, observed.old_clusters))


def _kept(old: OldCluster) -> str:
    pods, finish = ("1 pod", "finishes its") if old.pods == 1 else (f"{old.pods} pods", "finish their")
    kept = f" RayCluster {old.name}, which was replaced, still has {pods}"
    if old.until:
        return f"{kept} that {finish} requests, until {old.until} at the latest."
    return f"{kept}; KubeRay deletes it rayClusterDeletionDelaySeconds after it stopped serving."


def workers(intent: Intent, observed: Observed) -> tuple[WorkerStatus, ...]:
    """Workers of each group, in the cluster that serves or is about to."""
    pods = pods_of(observed, serving_cluster(observed))
    return tuple(
        WorkerStatus(
            group=group,
            ready=sum(pod.ready for pod in pods if pod.group == group),
            desired=sum(pod.group == group for pod in pods),
        )
        for group in intent.groups
    )


def replicas(intent: Intent, observed: Observed) -> ReplicaStatus:
    """Replicas as Ray counts them; where Ray cannot be asked, as many as the workers hold."""
    application = known(observed, serving_cluster(observed))
    low, high = intent.low, intent.high
    if intent.suspend:
        ready = desired = low = 0
    elif application.counted:
        ready, desired = application.model, application.target
    else:
        ready, desired = _held(intent, observed)
    return ReplicaStatus(
        ready=ready, desired=desired, min=low, max=high, summary=f"{ready}/{desired} ({low}-{high})"
    )


def _held(intent: Intent, observed: Observed) -> tuple[int, int]:
    """Replicas by the workers that hold them: each worker is filled before another is asked for."""
    view = observed.ray_service
    by_group = {each.group: each for each in workers(intent, observed)}
    running = view is not None and bool(view.active) and view.active_application.status in {"RUNNING", ""}
    ready = sum(by_group[name].ready * count for name, count in intent.groups.items()) if running else 0
    asked = sum(by_group[name].desired * count for name, count in intent.groups.items())
    desired = min(max(asked, intent.low), intent.high)
    return min(ready, desired), desired
