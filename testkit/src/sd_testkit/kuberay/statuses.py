# SPDX-License-Identifier: Apache-2.0
"""The status KubeRay writes into a RayService (pure)."""

import importlib.util
from dataclasses import dataclass
from typing import Any

import yaml

Json = dict[str, Any]

SCRIPTED_APPLICATION = "testkit.sdservice.dev/application"
"""Annotation by which a test sets the application's status on the RayService."""

_ENDPOINT_REASONS = {True: "NonZeroServeEndpoints", False: "ZeroServeEndpoints"}


@dataclass(frozen=True)
class ClusterView:
    """A RayCluster and what its pods say.

    Attributes:
        application: status of the Serve application as last read; empty before the first deployment.
        endpoints: pods that take requests.
    """

    name: str
    head_ready: bool
    workers_ready: bool
    application: str
    endpoints: int


def outcome(ray_service: Json) -> tuple[str, str]:
    """What becomes of the application: (status, message), scripted or by whether its module can be found."""
    scripted = ray_service["metadata"].get("annotations", {}).get(SCRIPTED_APPLICATION)
    if scripted:
        return scripted, f"{scripted} by annotation {SCRIPTED_APPLICATION}"
    config = yaml.safe_load(ray_service["spec"].get("serveConfigV2", "")) or {}
    for application in config.get("applications", []):
        module = application["import_path"].partition(":")[0]
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            return "DEPLOY_FAILED", f"ModuleNotFoundError: No module named '{module}'"
    return "RUNNING", ""


def serving(ray_service: Json, active: ClusterView | None, pending: ClusterView | None) -> Json:
    """Status of a RayService with clusters."""
    endpoints = active.endpoints if active else 0
    status: Json = {"observedGeneration": ray_service["metadata"]["generation"], "conditions": []}
    if active:
        # While a second cluster comes up, the first one's application is not read.
        status["activeServiceStatus"] = _service_status(ray_service, active, told=pending is None)
        status["numServeEndpoints"] = endpoints
        upgrade = ("True", "BothActivePendingClustersExist") if pending else ("False", "NoPendingCluster")
        ready = ("True" if endpoints else "False", _ENDPOINT_REASONS[endpoints > 0])
    else:
        ready = upgrade = ("False", "Initializing")
    if pending:
        status["pendingServiceStatus"] = _service_status(ray_service, pending, told=True)
    status["conditions"] = _conditions(ray_service, {"Ready": ready, "UpgradeInProgress": upgrade})
    return status


def refused(ray_service: Json, message: str) -> Json:
    """Status of a RayService that fails the checks: all as it was, observedGeneration included."""
    status: Json = dict(ray_service.get("status") or {})
    kept = [each for each in status.get("conditions", []) if each["type"] != "Ready"]
    ready = _conditions(ray_service, {"Ready": ("False", "ValidationFailed")}, message)
    return {**status, "conditions": [*ready, *kept]}


def suspending(ray_service: Json, *, done: bool) -> Json:
    """Status while clusters are given back, and after."""
    reason = "SuspendComplete" if done else "SuspendInProgress"
    states = {
        "Ready": ("False", reason),
        "UpgradeInProgress": ("False", reason),
        "RollbackInProgress": ("False", reason),
        "Suspending": ("False", reason) if done else ("True", "SuspendRequested"),
    }
    if done:
        states["Suspended"] = ("True", reason)
    generation = ray_service["metadata"]["generation"]
    return {"observedGeneration": generation, "conditions": _conditions(ray_service, states)}


def resumed(ray_service: Json, status: Json) -> Json:
    """The conditions that stay behind after a suspension."""
    known = {each["type"]: each for each in (ray_service.get("status") or {}).get("conditions", [])}
    if "Suspended" not in known:
        return status
    states = {
        "Suspending": ("False", "SuspendComplete"),
        "RollbackInProgress": ("False", "SuspendComplete"),
        "Suspended": ("False", "RayServiceResumed"),
    }
    return {**status, "conditions": [*status["conditions"], *_conditions(ray_service, states)]}


def _service_status(ray_service: Json, cluster: ClusterView, *, told: bool) -> Json:
    status: Json = {"rayClusterName": cluster.name, "rayClusterStatus": {"head": {}}}
    if told and cluster.application:
        message = outcome(ray_service)[1] if cluster.application != "RUNNING" else ""
        application = {"status": cluster.application, "message": message}
        status["applicationStatuses"] = {"imagine": application}
    return status


def _conditions(ray_service: Json, states: dict[str, tuple[str, str]], message: str = "") -> list[Json]:
    """Conditions; the time moves when the status flips."""
    before = {each["type"]: each for each in (ray_service.get("status") or {}).get("conditions", [])}
    found = []
    for kind, (state, reason) in states.items():
        old = before.get(kind)
        since = old["lastTransitionTime"] if old and old["status"] == state else None
        found.append(
            {
                "type": kind,
                "status": state,
                "reason": reason,
                "message": message or reason,
                "lastTransitionTime": since,
                "observedGeneration": ray_service["metadata"]["generation"],
            }
        )
    return found
