# SPDX-License-Identifier: Apache-2.0
"""`Upgrading`: a second cluster is on its way, or a change waits that no second cluster will bring (pure)."""

import re

from sd_operator.api.status import Reason
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.observe.snapshot import RayServiceView, Snapshot, pods_of
from sd_operator.ray.serve_state import FAILED
from sd_operator.status.condition_state import ConditionState
from sd_operator.status.conditions import is_suspended

# In the scheduler's words; the names of extended resources, such as GPUs, are those with a slash.
_NO_DEVICE = re.compile(r"Insufficient ([\w.-]+/[\w.-]*\w)")


def upgrading(effective: EffectiveSpec, snapshot: Snapshot) -> ConditionState:
    """Whether the cluster that serves is about to be replaced."""
    view, state = snapshot.ray_service, snapshot.upgrade
    if view is None or not view.active or is_suspended(effective, view):
        return ConditionState("False", Reason.UP_TO_DATE, "No second cluster is starting.")
    if view.pending:
        return _second_cluster(snapshot, view)
    if not state.behind and state.outdated:
        message = (
            f"KubeRay has rewritten {view.active} since its pods started, as a new version of KubeRay does, and renews no"
            f" pods by itself: {state.outdated}, still run the former spec. A pod that is replaced runs the present one. To"
            " have that now, delete these pods one by one."
        )
        return ConditionState("False", Reason.CHANGES_IGNORED, message)
    if not state.behind:
        return ConditionState("False", Reason.UP_TO_DATE, "No second cluster is starting.")
    if effective.strategy == "InPlaceOnly":
        message = (
            f"Upgrade strategy InPlaceOnly: {view.active} keeps its pods as they are, although the spec wants other"
            f" ones ({state.behind}). The serving configuration of the spec reaches them. To have all of it, set"
            " upgrade.strategy: NewCluster."
        )
        return ConditionState("False", Reason.CHANGES_IGNORED, message)
    message = f"KubeRay is asked for a second cluster, since {view.active} has other pods: {state.behind}."
    if effective.strategy == "Incremental":
        message += " If it never comes: the strategy needs KubeRay's feature gate RayServiceIncrementalUpgrade and the Gateway API."
    return ConditionState("True", Reason.NEW_CLUSTER_STARTING, message)


def waiting_for_others(ahead: int) -> ConditionState:
    """A condition about a change that comes from the operator and waits for so many services to have theirs."""
    others = "another service gets" if ahead == 1 else f"{ahead} other services get"
    message = (
        f"This operator gives the pods something else than they have; {others} it first. It goes on by itself, or at once"
        " with an edit of the spec."
    )
    return ConditionState("False", Reason.WAITING_FOR_OTHERS, message)


def _second_cluster(snapshot: Snapshot, view: RayServiceView) -> ConditionState:
    state, application = snapshot.upgrade, view.pending_application
    if application.status in FAILED:
        message = (
            f"RayCluster {view.pending} does not come up: its application is {application.status}"
            f" ({application.message or 'Ray gives no reason'}). {view.active} serves on as before; mend the spec, or"
            " take the change back."
        )
        return ConditionState("True", Reason.UPGRADE_FAILED, message)
    message = f"RayCluster {view.pending} is starting; {view.active} serves until it is ready."
    if state.traffic_percent is not None:
        message = f"RayCluster {view.pending} takes {state.traffic_percent} % of the requests, {view.active} the others."
    if lacking := _shortage(snapshot, view.pending):
        return ConditionState("True", Reason.SHORT_OF_GPUS, f"{message} {lacking}")
    return ConditionState("True", Reason.NEW_CLUSTER_STARTING, message)


def _shortage(snapshot: Snapshot, cluster: str) -> str:
    """The pods of a RayCluster that find no GPU, as sentences; empty where none is known to lack one."""
    workers = [pod for pod in pods_of(snapshot, cluster) if not pod.is_head]
    problems = [pod.problem for pod in workers if pod.problem and pod.problem.reason is Reason.UNSCHEDULABLE]
    short = [(each, found) for each in problems if (found := _NO_DEVICE.search(each.words))]
    if not short:
        return ""
    since, resource = min(each.since for each, _ in short), short[0][1][1]
    since = f" since {since}" if since else ""
    return (
        f"{len(short)} of its {len(workers)} worker pods have found no node with enough {resource}{since}. They"
        " start as soon as there is one: add nodes (an autoscaler may), free GPUs, or take the change back."
    )
