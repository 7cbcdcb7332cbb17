# SPDX-License-Identifier: Apache-2.0
"""`Upgrading`: a second RayCluster is starting, or a change is on hold or needs a step by a person (pure)."""

import re

from sd_operator.api.status import Reason
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.observe.snapshot import RayServiceView, Snapshot, pods_of
from sd_operator.ray.serve_state import FAILED
from sd_operator.status.condition_state import ConditionState
from sd_operator.status.conditions import is_suspended

# From the scheduler's message; names of extended resources, such as GPUs, contain a slash.
_NO_DEVICE = re.compile(r"Insufficient ([\w.-]+/[\w.-]*\w)")


def upgrading(effective: EffectiveSpec, snapshot: Snapshot) -> ConditionState:
    """Whether a second RayCluster is about to replace the one that serves."""
    view, state = snapshot.ray_service, snapshot.upgrade
    if view is None or not view.active or is_suspended(effective, view):
        return ConditionState("False", Reason.UP_TO_DATE, "No second cluster is starting.")
    if view.pending:
        return _second_cluster(snapshot, view)
    if not state.behind and state.outdated:
        message = (
            f"KubeRay has rewritten RayCluster {view.active} since its pods started, as a new version of KubeRay does."
            f" KubeRay does not replace these pods by itself. Pods that still run the former spec: {state.outdated}."
            " A replacement pod runs the current spec. To apply it now, delete these pods one by one."
        )
        return ConditionState("False", Reason.CHANGES_IGNORED, message)
    if not state.behind:
        return ConditionState("False", Reason.UP_TO_DATE, "No second cluster is starting.")
    if effective.strategy == "InPlaceOnly":
        message = (
            f"Upgrade strategy InPlaceOnly: RayCluster {view.active} keeps its pods, although they differ from the spec"
            f" ({state.behind}). Only the serving configuration of the spec is applied to them. To apply the whole spec,"
            " set upgrade.strategy: NewCluster."
        )
        return ConditionState("False", Reason.CHANGES_IGNORED, message)
    message = f"KubeRay is about to start a second RayCluster, because RayCluster {view.active} differs from the spec: {state.behind}."
    if effective.strategy == "Incremental":
        message += (
            " If the second cluster does not appear, enable KubeRay's feature gate RayServiceIncrementalUpgrade and"
            " install the Gateway API."
        )
    return ConditionState("True", Reason.NEW_CLUSTER_STARTING, message)


def waiting_for_others(ahead: int) -> ConditionState:
    """The state of a condition while a change by a new operator waits until that many other services have finished."""
    others = "1 other service has finished" if ahead == 1 else f"{ahead} other services have finished"
    message = (
        "A new version or setting of the operator changes the pods of this service. The change is on hold until"
        f" {others}. It continues automatically, or immediately after an edit of the spec."
    )
    return ConditionState("False", Reason.WAITING_FOR_OTHERS, message)


def _second_cluster(snapshot: Snapshot, view: RayServiceView) -> ConditionState:
    state, application = snapshot.upgrade, view.pending_application
    if application.status in FAILED:
        message = (
            f"RayCluster {view.pending} does not come up: its application is {application.status}"
            f" ({application.message or 'Ray gives no reason'}). RayCluster {view.active} continues to serve. Fix the spec,"
            " or revert the change."
        )
        return ConditionState("True", Reason.UPGRADE_FAILED, message)
    message = f"RayCluster {view.pending} is starting. RayCluster {view.active} serves until then."
    if state.traffic_percent is not None:
        message = (
            f"RayCluster {view.pending} receives {state.traffic_percent} % of the requests; RayCluster {view.active}"
            " receives the rest."
        )
    if lacking := _shortage(snapshot, view.pending):
        return ConditionState("True", Reason.SHORT_OF_GPUS, f"{message} {lacking}")
    return ConditionState("True", Reason.NEW_CLUSTER_STARTING, message)


def _shortage(snapshot: Snapshot, cluster: str) -> str:
    """Sentences about the worker pods of a RayCluster that find no GPU; empty if none is known to lack one."""
    workers = [pod for pod in pods_of(snapshot, cluster) if not pod.is_head]
    problems = [pod.problem for pod in workers if pod.problem and pod.problem.reason is Reason.UNSCHEDULABLE]
    short = [(each, found) for each in problems if (found := _NO_DEVICE.search(each.words))]
    if not short:
        return ""
    since, resource = min(each.since for each, _ in short), short[0][1][1]
    since = f" since {since}" if since else ""
    return (
        f"No node has had enough {resource} for {len(short)} of its {len(workers)} worker pods{since}. They start as"
        " soon as a node has enough. Add nodes (an autoscaler may do this), free GPUs, or revert the change."
    )
