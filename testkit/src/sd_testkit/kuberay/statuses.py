# SPDX-License-Identifier: Apache-2.0
"""The status that KubeRay writes into a RayService (pure).

https://github.com/ray-project/kuberay v1.7.0, ray-operator/controllers/ray/rayservice_controller.go: calculateStatus,
calculateConditions, handleSuspend. Incremental upgrades (the Gateway's weights) are left out.
"""

import copy
from dataclasses import dataclass

from sd_testkit.json_types import Json
from sd_testkit.kuberay.conditions import is_true, remove_condition, set_condition

Applications = dict[str, Json]
"""Application statuses by name, as KubeRay read them from the dashboard.

The mapping is empty if KubeRay did not read them.
"""

NO_CLUSTER: Json = {
    "rayClusterStatus": {
        "desiredCPU": "0",
        "desiredGPU": "0",
        "desiredMemory": "0",
        "desiredTPU": "0",
        "head": {},
    }
}
_MESSAGES = {
    "NonZeroServeEndpoints": "Number of serve endpoints is greater than 0",
    "ZeroServeEndpoints": "Number of serve endpoints dropped to 0",
    "BothActivePendingClustersExist": "Both active and pending Ray clusters exist",
    "NoPendingCluster": "Active Ray cluster exists and no pending Ray cluster",
}


@dataclass(frozen=True)
class Findings:
    """The results of one pass.

    Attributes:
        active: the RayCluster that serves; None if there is none. `pending` is similar.
        switched_to: name of the cluster that the Services point to; None if the pass did not read the Services.
        endpoints: ready pods behind the Service for requests.
        wants_cluster: name of a cluster to start; None if none is needed.
    """

    active: Json | None = None
    pending: Json | None = None
    active_applications: Applications | None = None
    pending_applications: Applications | None = None
    switched_to: str | None = None
    endpoints: int = 0
    wants_cluster: str | None = None


def serving(ray_service: Json, found: Findings) -> Json:
    """Return the status of a RayService that is neither refused nor suspended."""
    status = _before(ray_service)
    status["observedGeneration"] = ray_service["metadata"]["generation"]
    active = _side(status, "active", found.active, found.active_applications)
    pending = _side(status, "pending", found.pending, found.pending_applications)
    if found.switched_to is not None and found.switched_to != active.get("rayClusterName"):
        active, pending = pending, copy.deepcopy(NO_CLUSTER)
    if found.wants_cluster is not None:
        pending = {"rayClusterName": found.wants_cluster, **NO_CLUSTER}
    status["activeServiceStatus"], status["pendingServiceStatus"] = active, pending
    status["numServeEndpoints"] = found.endpoints
    _judge(status)
    return _written(status)


def refused(ray_service: Json, complaint: str) -> Json:
    """Return the status of a RayService that fails the checks.

    All other fields stay unchanged, observedGeneration included.
    """
    status = _before(ray_service)
    condition = {"type": "Ready", "status": "False", "reason": "ValidationFailed", "message": complaint}
    _set(status, condition)
    return status


def suspending(ray_service: Json) -> Json:
    """Return the status at the start of a suspension. The suspension cannot be interrupted after this point."""
    status = _before(ray_service)
    status["observedGeneration"] = ray_service["metadata"]["generation"]
    text = "Spec.Suspend is true; will delete all Kubernetes resources owned by this RayService."
    _set(status, {"type": "Suspending", "status": "True", "reason": "SuspendRequested", "message": text})
    _off(status, "SuspendInProgress", "RayService is suspending.")
    for side in ("active", "pending"):
        status[f"{side}ServiceStatus"] = copy.deepcopy(NO_CLUSTER)
    status["numServeEndpoints"] = 0
    return _written(status)


def suspended(ray_service: Json) -> Json:
    """Return the status once all owned objects are deleted."""
    status = _before(ray_service)
    text = "All owned resources have been deleted."
    _set(status, {"type": "Suspending", "status": "False", "reason": "SuspendComplete", "message": text})
    _set(status, {"type": "Suspended", "status": "True", "reason": "SuspendComplete", "message": text})
    _off(status, "SuspendComplete", "RayService is suspended.")
    return _written(status)


def resumed(ray_service: Json) -> Json:
    """Return the status after a suspension ends: the RayService initializes again."""
    status = _before(ray_service)
    status["observedGeneration"] = ray_service["metadata"]["generation"]
    text = "Spec.Suspend is false; RayService has resumed."
    _set(status, {"type": "Suspended", "status": "False", "reason": "RayServiceResumed", "message": text})
    text = "RayService is initializing after resuming from suspend."
    for kind in ("Ready", "UpgradeInProgress"):
        remove_condition(status["conditions"], kind)
        _set(status, {"type": kind, "status": "False", "reason": "Initializing", "message": text})
    return _written(status)


def is_suspending(ray_service: Json) -> bool:
    """Return whether a suspension has started and not ended."""
    return is_true(_before(ray_service)["conditions"], "Suspending")


def is_suspended(ray_service: Json) -> bool:
    """Return whether a suspension is complete."""
    return is_true(_before(ray_service)["conditions"], "Suspended")


def cluster_name(ray_service: Json, side: str) -> str:
    """Return the name of the `active` or `pending` cluster; empty if there is none."""
    status = (ray_service.get("status") or {}).get(f"{side}ServiceStatus") or {}
    return str(status.get("rayClusterName", ""))


def _before(ray_service: Json) -> Json:
    status: Json = copy.deepcopy(ray_service.get("status") or {})
    status.setdefault("conditions", [])
    return status


def _side(status: Json, side: str, cluster: Json | None, applications: Applications | None) -> Json:
    known = dict(status.get(f"{side}ServiceStatus") or {})
    known.pop("applicationStatuses", None)
    known |= copy.deepcopy(NO_CLUSTER)
    if cluster is not None and cluster.get("status"):
        known["rayClusterStatus"] = cluster["status"]
    if applications:
        known["applicationStatuses"] = applications
    return known


def _judge(status: Json) -> None:
    """Set Ready from the endpoints alone, and UpgradeInProgress from the clusters that have a name."""
    conditions = status["conditions"]
    if not conditions:
        for kind in ("Ready", "UpgradeInProgress"):
            text = "RayService is initializing"
            _set(status, {"type": kind, "status": "False", "reason": "Initializing", "message": text})
    if status["numServeEndpoints"] > 0:
        _told(status, "Ready", "True", "NonZeroServeEndpoints")
    elif is_true(conditions, "Ready"):
        _told(status, "Ready", "False", "ZeroServeEndpoints")
    active = status["activeServiceStatus"].get("rayClusterName")
    pending = status["pendingServiceStatus"].get("rayClusterName")
    if active and pending:
        _told(status, "UpgradeInProgress", "True", "BothActivePendingClustersExist")
    elif active:
        _told(status, "UpgradeInProgress", "False", "NoPendingCluster")


def _written(status: Json) -> Json:
    """Return the status as Go writes it. Zero and empty values are left out, and `serviceStatus` repeats Ready."""
    status.pop("serviceStatus", None)
    if is_true(status["conditions"], "Ready"):
        status["serviceStatus"] = "Running"
    return {key: value for key, value in status.items() if value not in (0, "")}


def _told(status: Json, kind: str, value: str, reason: str) -> None:
    _set(status, {"type": kind, "status": value, "reason": reason, "message": _MESSAGES[reason]})


def _off(status: Json, reason: str, ready: str) -> None:
    texts = {
        "Ready": ready,
        "UpgradeInProgress": "No upgrade in progress.",
        "RollbackInProgress": "No rollback in progress.",
    }
    for kind, text in texts.items():
        _set(status, {"type": kind, "status": "False", "reason": reason, "message": text})


def _set(status: Json, condition: Json) -> None:
    observed = status.get("observedGeneration", 0)
    set_condition(status["conditions"], {**condition, "observedGeneration": observed})
