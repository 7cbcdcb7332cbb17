# SPDX-License-Identifier: Apache-2.0
"""The checks by which KubeRay refuses a RayService before any other step (pure).

Source of the rules, not of the wording: https://github.com/ray-project/kuberay v1.7.0,
ray-operator/controllers/ray/utils/validation.go. Rules behind feature gates that are off by default are left out. The
exception is the store in a volume.
"""

import re
from collections.abc import Iterator, Mapping

from sd_testkit.json_types import Json

_NAME_LIMIT = 47
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_STRATEGIES = {"NewCluster", "NewClusterWithIncrementalUpgrade", "None"}
_RAY_RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")
_AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"


def problem(ray_service: Json) -> str | None:
    """Return KubeRay's message about the RayService, or None if the RayService is valid."""
    for part, found in (
        ("metadata", _metadata_problems(ray_service["metadata"])),
        ("spec", _spec_problems(ray_service)),
    ):
        for each in found:
            return f"The RayService {part} is invalid: {each}"
    return None


def _spec_problems(ray_service: Json) -> Iterator[str]:
    metadata, spec = ray_service["metadata"], ray_service["spec"]
    cluster = spec["rayClusterConfig"]
    if cluster.get("authOptions", {}).get("enableK8sTokenAuth"):
        yield "K8s token auth mode is currently not supported for RayService"
    yield from _cluster_problems(cluster, metadata.get("annotations", {}))
    if cluster["headGroupSpec"].get("headService", {}).get("metadata", {}).get("name"):
        yield "spec.rayClusterConfig.headGroupSpec.headService.metadata.name should not be set"
    if "upgradeStrategy" in cluster:
        yield "upgradeStrategy cannot be set when RayCluster is created by RayService"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "Spec.RayClusterDeletionDelaySeconds should be a non-negative integer"
    yield from _upgrade_problems(spec.get("upgradeStrategy", {}), cluster)


def _metadata_problems(metadata: Json) -> Iterator[str]:
    if len(metadata["name"]) > _NAME_LIMIT:
        yield f"RayService name should be no more than {_NAME_LIMIT} characters"
    if _NAME.fullmatch(metadata["name"]) is None:
        yield "RayService name should be a valid DNS1035 label"


def _cluster_problems(cluster: Json, annotations: Mapping[str, str]) -> Iterator[str]:
    head, workers = cluster["headGroupSpec"], cluster.get("workerGroupSpecs", [])
    for name, group in (("Head", head), *((group["groupName"], group) for group in workers)):
        yield from _group_problems(name, group)
    names = [group["groupName"] for group in workers]
    if len(names) != len(set(names)):
        yield "worker group names must be unique"  # This check belongs to the webhook, which is off by default.
    yield from _redis_problems(cluster, annotations)
    yield from _autoscaler_problems(cluster)
    for group in workers:
        yield from _worker_problems(group, cluster)
    yield from _auth_problems(cluster)


def _group_problems(name: str, group: Json) -> Iterator[str]:
    parameters = group.get("rayStartParams", {})
    if not group["template"]["spec"].get("containers"):
        yield f"{name}: should have at least one container"
    if "labels" in parameters:
        yield f"{name}: rayStartParams['labels'] is not supported; use the group's labels"
    if group.get("resources") and any(parameters.get(each) for each in _RAY_RESOURCES):
        yield f"{name}: resources should not be set in both rayStartParams and resources"
    if group.get("suspend"):
        yield f"{name}: cannot be suspended"


def _worker_problems(group: Json, cluster: Json) -> Iterator[str]:
    name, low, high = group["groupName"], group.get("minReplicas"), group.get("maxReplicas")
    if low is None or high is None:
        if not cluster.get("enableInTreeAutoscaling"):
            yield f"{name}: minReplicas and maxReplicas are required without autoscaling"
    elif not 0 <= low <= high:
        yield f"{name}: minReplicas must be from 0 to maxReplicas"
    if group.get("idleTimeoutSeconds", 0) < 0:
        yield f"{name}: idleTimeoutSeconds must be non-negative"
    if ("idleTimeoutSeconds" in group or group.get("priority")) and not _is_v2(cluster):
        yield f"{name}: idleTimeoutSeconds and priority need autoscalerOptions.version v2"
    if group.get("priority") and _ray_version(cluster) < (2, 56):
        yield f"{name}: priority needs rayVersion 2.56.0 or newer"


def _autoscaler_problems(cluster: Json) -> Iterator[str]:
    options, head = cluster.get("autoscalerOptions", {}), cluster["headGroupSpec"]
    if "version" in options and _AUTOSCALER_V2 in _environment(head):
        yield f"both autoscalerOptions.version and head Pod env var {_AUTOSCALER_V2} are set"
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield "autoscalerOptions.idleTimeoutSeconds must be non-negative"
    if any(each["name"] == "KUBERAY_GEN_AUTOSCALER_START_CMD" for each in options.get("env", [])):
        yield "autoscalerOptions.env must not contain KUBERAY_GEN_AUTOSCALER_START_CMD"
    if _is_v2(cluster):
        for group in (head, *cluster.get("workerGroupSpecs", [])):
            if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
                yield "restartPolicy should be Never or unset when using autoscaler V2"


def _redis_problems(cluster: Json, annotations: Mapping[str, str]) -> Iterator[str]:
    head = cluster["headGroupSpec"]
    environment, parameters = _environment(head), head.get("rayStartParams", {})
    if "gcsFaultToleranceOptions" in cluster:
        if annotations.get("ray.io/ft-enabled") or annotations.get("ray.io/external-storage-namespace"):
            yield "GcsFaultToleranceOptions excludes the annotations of GCS fault tolerance"
        if parameters.get("redis-password") or environment & {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS"}:
            yield "use GcsFaultToleranceOptions alone for Redis"
        yield from _store_problems(cluster["gcsFaultToleranceOptions"])
    elif "RAY_REDIS_ADDRESS" in environment and annotations.get("ray.io/ft-enabled") != "true":
        yield "RAY_REDIS_ADDRESS is set, but GcsFaultToleranceOptions is not"
    if parameters.get("redis-username") or "REDIS_USERNAME" in environment:
        yield "use GcsFaultToleranceOptions.RedisUsername instead"


def _store_problems(options: Json) -> Iterator[str]:
    """Return the problems that KubeRay finds with the feature gate GCSFaultToleranceEmbeddedStorage.

    The gate is off by default.
    """
    if options.get("backend") != "rocksdb":
        if "storage" in options:
            yield "GcsFaultToleranceOptions.Storage only applies to the rocksdb backend"
        return
    for each in ("redisAddress", "redisUsername", "redisPassword", "externalStorageNamespace"):
        if options.get(each):
            yield f"GcsFaultToleranceOptions.{each} excludes the rocksdb backend"


def _auth_problems(cluster: Json) -> Iterator[str]:
    if cluster.get("authOptions", {}).get("mode") == "token" and _ray_version(cluster) < (2, 52):
        yield "authOptions.mode is 'token' but minimum Ray version is 2.52.0"


def _upgrade_problems(strategy: Json, cluster: Json) -> Iterator[str]:
    kind = strategy.get("type", "NewCluster")
    if kind not in _STRATEGIES:
        yield f"Spec.UpgradeStrategy.Type value {kind} is invalid"
    if kind != "NewClusterWithIncrementalUpgrade":
        return
    if not cluster.get("enableInTreeAutoscaling"):
        yield "Ray Autoscaler is required for NewClusterWithIncrementalUpgrade"
    options = strategy.get("clusterUpgradeOptions")
    if options is None:
        yield "ClusterUpgradeOptions are required for NewClusterWithIncrementalUpgrade"
        return
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent", -1)
    if not 0 <= step <= surge <= 100:  # noqa: PLR2004 - percent
        yield "stepSizePercent must be between 0 and maxSurgePercent, maxSurgePercent at most 100"
    if options.get("intervalSeconds", 0) <= 0:
        yield "intervalSeconds must be greater than 0"
    if not options.get("gatewayClassName"):
        yield "gatewayClassName is required for NewClusterWithIncrementalUpgrade"


def _is_v2(cluster: Json) -> bool:
    """Return whether autoscalerOptions request version 2.

    KubeRay also accepts the head's environment for this.
    """
    version = cluster.get("autoscalerOptions", {}).get("version")
    return bool(cluster.get("enableInTreeAutoscaling")) and version == "v2"


def _ray_version(cluster: Json) -> tuple[int, ...]:
    return tuple(int(part) for part in cluster.get("rayVersion", "0").split(".")[:2])


def _environment(group: Json) -> set[str]:
    containers = group["template"]["spec"].get("containers") or [{}]
    return {each["name"] for each in containers[0].get("env", [])}
