# SPDX-License-Identifier: Apache-2.0
"""`Schedulable`: every pod that Ray asks for finds a node and may be created (pure).

False is damped: a worker that waits is what an autoscaler of nodes acts upon, so it counts after 30 s only. A pod
that was refused by a quota or a policy counts at once.
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
    """What keeps pods of a RayCluster from running: the head's before the workers', the oldest first."""
    pods = sorted(pods_of(snapshot, cluster), key=lambda pod: not pod.is_head)
    found = [pod.problem for pod in pods if pod.problem and pod.is_head]
    workers = [pod.problem for pod in pods if pod.problem and not pod.is_head]
    found += sorted(workers, key=lambda each: (each.since, each.subject))
    refused = snapshot.cluster_troubles.get(cluster)
    return [*found, *filter(None, (refused, snapshot.deaths))]


def schedulable(snapshot: Snapshot, now: datetime) -> ConditionState:
    """Whether the pods of the serving cluster, and of one that comes up, have a place."""
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
    """Whether a pod has waited for a node for so short a time that this is no reason yet."""
    is_waiting = problem.reason is Reason.UNSCHEDULABLE and bool(problem.since)
    return is_waiting and now - problem.started() < PATIENCE
