# SPDX-License-Identifier: Apache-2.0
"""`Schedulable`: every pod that Ray requests may be created and finds a node (pure).

A worker without a node counts after 30 s only, because a node autoscaler acts on waiting pods. A pod that a quota or a
policy refuses counts immediately.
"""

from datetime import datetime, timedelta

from sd_operator.api.status import Reason
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.snapshot import Snapshot, pods_of
from sd_operator.status.condition_state import ConditionState
from sd_operator.status.counts import kept_room

PATIENCE = timedelta(seconds=30)
_KINDS = {Reason.UNSCHEDULABLE, Reason.QUOTA_EXCEEDED, Reason.PODS_REFUSED}


def problems(snapshot: Snapshot, cluster: str) -> list[PodProblem]:
    """The problems that keep pods of a RayCluster from running: the head's first, then the workers', oldest first."""
    pods = sorted(pods_of(snapshot, cluster), key=lambda pod: not pod.is_head)
    found = [pod.problem for pod in pods if pod.problem and pod.is_head]
    workers = [pod.problem for pod in pods if pod.problem and not pod.is_head]
    found += sorted(workers, key=lambda each: (each.since, each.subject))
    refused = snapshot.cluster_troubles.get(cluster)
    return [*found, *filter(None, (refused, snapshot.deaths))]


def schedulable(snapshot: Snapshot, now: datetime) -> ConditionState:
    """Whether all pods of the serving and of the pending RayCluster have a node."""
    found = [
        each for cluster in snapshot.clusters for each in problems(snapshot, cluster) if each.reason in _KINDS
    ]
    waiting = [each for each in found if not is_young(each, now)]
    if not waiting:
        return ConditionState("True", Reason.SCHEDULED, "No pod waits for a node.")
    more = f" ({len(waiting) - 1} more wait)" if len(waiting) > 1 else ""
    message, kept = f"{waiting[0]}{more}", kept_room(snapshot)
    return ConditionState("False", waiting[0].reason, f"{message.rstrip('.')}.{kept}" if kept else message)


def is_young(problem: PodProblem, now: datetime) -> bool:
    """Whether a pod has waited for a node for less than `PATIENCE`, so that it does not count yet."""
    is_waiting = problem.reason is Reason.UNSCHEDULABLE and bool(problem.since)
    return is_waiting and now - problem.started() < PATIENCE
