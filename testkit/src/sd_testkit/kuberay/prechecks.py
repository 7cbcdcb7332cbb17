# SPDX-License-Identifier: Apache-2.0
"""What KubeRay refuses in a RayService (pure)."""

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

_NAME_LIMIT = 47


def problem(ray_service: Json) -> str | None:
    """KubeRay's complaint about the RayService, None where it has none."""
    return next(_problems(ray_service), None)


def _problems(ray_service: Json) -> Iterator[str]:
    spec = ray_service["spec"]
    cluster = spec["rayClusterConfig"]
    head = cluster["headGroupSpec"]
    if len(ray_service["metadata"]["name"]) > _NAME_LIMIT:
        yield f"RayService name should be no more than {_NAME_LIMIT} characters"
    if head.get("headService", {}).get("metadata", {}).get("name"):
        yield "spec.rayClusterConfig.headGroupSpec.headService.metadata.name should not be set"
    if "upgradeStrategy" in cluster:
        yield "upgradeStrategy is not allowed in the RayCluster of a RayService"
    yield from _group_problems("head", head)
    names = [group["groupName"] for group in cluster.get("workerGroupSpecs", [])]
    if len(names) != len(set(names)):
        yield "worker group names must be unique"
    for group in cluster.get("workerGroupSpecs", []):
        yield from _group_problems(group["groupName"], group)
        yield from _worker_problems(group, cluster)
    yield from _auth_problems(cluster)


def _group_problems(name: str, group: Json) -> Iterator[str]:
    if not group["template"]["spec"].get("containers"):
        yield f"{name}: should have at least one container"
    if "labels" in group.get("rayStartParams", {}):
        yield f"{name}: rayStartParams['labels'] is not supported; use the group's labels"


def _worker_problems(group: Json, cluster: Json) -> Iterator[str]:
    name, low, high = group["groupName"], group.get("minReplicas"), group.get("maxReplicas")
    if low is None or high is None:
        if not cluster.get("enableInTreeAutoscaling"):
            yield f"{name}: minReplicas and maxReplicas are required without autoscaling"
    elif not 0 <= low <= high:
        yield f"{name}: minReplicas must be from 0 to maxReplicas"
    version = cluster.get("autoscalerOptions", {}).get("version")
    if version != "v2" and ("idleTimeoutSeconds" in group or "priority" in group):
        yield f"{name}: idleTimeoutSeconds and priority need autoscalerOptions.version v2"
    if version == "v2" and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
        yield f"{name}: restartPolicy should be Never or unset with autoscaler v2"


def _auth_problems(cluster: Json) -> Iterator[str]:
    options = cluster.get("authOptions", {})
    version = tuple(int(part) for part in cluster.get("rayVersion", "0").split(".")[:2])
    if options.get("mode") == "token" and version < (2, 52):
        yield "authOptions.mode token needs rayVersion 2.52.0 or newer"
    if options.get("enableK8sTokenAuth"):
        yield "enableK8sTokenAuth is not supported for RayService"
