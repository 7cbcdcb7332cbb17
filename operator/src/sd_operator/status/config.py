# SPDX-License-Identifier: Apache-2.0
"""`ConfigApplied`: Ray runs the Serve config of this spec, as read back from Ray (pure).

KubeRay sends the config to one cluster only. That is the pending cluster during an upgrade, and the serving cluster
otherwise. If Ray does not answer, KubeRay's report that it sent the config is used, and the message states that.
"""

from sd_operator.api.status import Reason
from sd_operator.observe.application import Known, known
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.observe.snapshot import RayServiceView, Snapshot
from sd_operator.ray.serve_diff import differences
from sd_operator.status.condition_state import ConditionState
from sd_operator.status.conditions import is_suspended


def config_applied(effective: EffectiveSpec, snapshot: Snapshot, *, in_place: bool = False) -> ConditionState:
    """Whether Ray runs the Serve config of this spec.

    Args:
        effective: the effective spec.
        snapshot: the observed state.
        in_place: replicas are replaced in place, because no node became available for an additional worker.
    """
    found = _config_applied(effective, snapshot)
    if in_place and found.reason is Reason.APPLICATION_DEPLOYING:
        message = (
            "No node became available for an additional worker in time (upgrade.surgeTimeoutSeconds). Replicas are now"
            f" replaced in place: each replica stops before its successor starts. {found.message}"
        )
        return ConditionState("False", Reason.REPLACING_IN_PLACE, message)
    return found


def _config_applied(effective: EffectiveSpec, snapshot: Snapshot) -> ConditionState:
    view = snapshot.ray_service
    if is_suspended(effective, view):
        return ConditionState(
            "False", Reason.SUSPENDED, "The service is suspended, so Ray runs no configuration."
        )
    if view is None or not view.up_to_date:
        return ConditionState(
            "False", Reason.CONFIG_PENDING, "KubeRay has not processed the latest RayService yet."
        )
    cluster = view.pending or view.active
    application = known(snapshot, cluster)
    reading = application.reading
    if reading is None:
        return _as_kuberay_reports(view, application)
    if reading.state.config is None:
        return ConditionState(
            "False",
            Reason.CONFIG_PENDING,
            f"RayCluster {cluster} has no Serve configuration yet{application.age}.",
        )
    found = differences(effective.config, reading.state)
    if found:
        more = f" ({len(found) - 1} more differ)" if len(found) > 1 else ""
        return ConditionState("False", Reason.CONFIG_DIFFERS, f"{found[0]}{more}{application.age}")
    return _settled(view, application)


def _settled(view: RayServiceView, application: Known) -> ConditionState:
    """The state once Ray has accepted the config: it is applied when the replicas that receive requests run with it."""
    if application.status == "DEPLOY_FAILED":
        return ConditionState("False", Reason.APPLICATION_FAILED, application.reason)
    if application.status not in {"RUNNING", "UNHEALTHY"}:
        message = (
            f"Ray has accepted the configuration; the application is {application.status}{application.age}."
        )
        return ConditionState("False", Reason.APPLICATION_DEPLOYING, message)
    if view.pending:
        message = f"RayCluster {view.pending} runs the configuration but does not serve yet." + (
            f" RayCluster {view.active} still serves with the former configuration." if view.active else ""
        )
        return ConditionState("False", Reason.NEW_CLUSTER_STARTING, message)
    message = f"Ray runs the configuration of this spec{application.age}."
    return ConditionState("True", Reason.APPLICATION_RUNNING, message)


def _as_kuberay_reports(view: RayServiceView, application: Known) -> ConditionState:
    unread = f" {application.unread}." if application.unread else ""
    if not application.status:
        return ConditionState(
            "False", Reason.CONFIG_PENDING, f"The configuration has not reached Ray yet.{unread}"
        )
    settled = _settled(view, application)
    if settled.status == "True":
        message = (
            f"KubeRay sent the configuration of this spec to Ray; the operator has not read it back.{unread}"
        )
        return ConditionState("True", Reason.APPLICATION_RUNNING, message)
    return settled
