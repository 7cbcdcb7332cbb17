# SPDX-License-Identifier: Apache-2.0
"""`ConfigApplied`: Ray runs the Serve config of this spec, as read back from Ray (pure).

The config goes to one cluster only: to the one that comes up while a second one does, else to the one that serves.
Where Ray cannot be asked, KubeRay's word that it handed the config over has to do, and the message says so.
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
        effective: what is meant to run.
        snapshot: what was observed.
        in_place: replicas are replaced where they are, since no node came for an additional worker.
    """
    found = _config_applied(effective, snapshot)
    if in_place and found.reason is Reason.APPLICATION_DEPLOYING:
        message = (
            "No node came for an additional worker in time (upgrade.surgeTimeoutSeconds), so replicas are replaced where"
            f" they are: each stops before its successor starts. {found.message}"
        )
        return ConditionState("False", Reason.REPLACING_IN_PLACE, message)
    return found


def _config_applied(effective: EffectiveSpec, snapshot: Snapshot) -> ConditionState:
    view = snapshot.ray_service
    if is_suspended(effective, view):
        return ConditionState("False", Reason.SUSPENDED, "Nothing runs while suspended.")
    if view is None or not view.up_to_date:
        return ConditionState(
            "False", Reason.CONFIG_PENDING, "KubeRay has not taken up the latest RayService yet."
        )
    cluster = view.pending or view.active
    application = known(snapshot, cluster)
    reading = application.reading
    if reading is None:
        return _by_kuberays_word(view, application)
    if reading.state.config is None:
        return ConditionState(
            "False", Reason.CONFIG_PENDING, f"{cluster} has no configuration yet{application.age}."
        )
    found = differences(effective.config, reading.state)
    if found:
        more = f" ({len(found) - 1} more differ)" if len(found) > 1 else ""
        return ConditionState("False", Reason.CONFIG_DIFFERS, f"{found[0]}{more}{application.age}")
    return _settled(view, application)


def _settled(view: RayServiceView, application: Known) -> ConditionState:
    """Ray has taken it over; it is applied once replicas run with it where requests arrive."""
    if application.status == "DEPLOY_FAILED":
        return ConditionState("False", Reason.APPLICATION_FAILED, application.reason)
    if application.status not in {"RUNNING", "UNHEALTHY"}:
        message = f"Ray has the configuration; the application is {application.status}{application.age}."
        return ConditionState("False", Reason.APPLICATION_DEPLOYING, message)
    if view.pending:
        message = f"{view.pending} runs it and is not serving yet" + (
            f"; {view.active} serves with the former one." if view.active else "."
        )
        return ConditionState("False", Reason.NEW_CLUSTER_STARTING, message)
    message = f"Ray runs the configuration of this spec{application.age}."
    return ConditionState("True", Reason.APPLICATION_RUNNING, message)


def _by_kuberays_word(view: RayServiceView, application: Known) -> ConditionState:
    unread = f" {application.unread}." if application.unread else ""
    if not application.status:
        return ConditionState(
            "False", Reason.CONFIG_PENDING, f"The configuration is on its way to Ray.{unread}"
        )
    settled = _settled(view, application)
    if settled.status == "True":
        message = f"KubeRay handed the configuration of this spec to Ray; it was not read back.{unread}"
        return ConditionState("True", Reason.APPLICATION_RUNNING, message)
    return settled
