# SPDX-License-Identifier: Apache-2.0
"""Builds the RayService. KubeRay creates a head, workers and Services from it, and PUTs the Serve config to Ray.

The builder avoids values that KubeRay refuses or silently ignores: no name for the head Service, no `labels` in
rayStartParams, and an explicit autoscaler version together with group priorities.
"""

import json

from sd_operator import naming
from sd_operator.api import Redis, Resource, Spec, StateVolume, WorkerGroup
from sd_operator.api.capacity import Bounds, gpus_per_worker, replicas_per_worker, worker_bounds
from sd_operator.api.placement import MAX_WORKER_GROUPS
from sd_operator.builders.canonical import canonical, completed
from sd_operator.builders.fingerprint import fingerprint
from sd_operator.builders.metadata import owned_metadata
from sd_operator.builders.pod import head_template, security_context, worker_template
from sd_operator.builders.serve_config import grace_seconds, serve_config_text
from sd_operator.json_types import Json
from sd_operator.settings import Settings

API_VERSION = "ray.io/v1"
KIND = "RayService"

STRATEGIES = {
    "NewCluster": "NewCluster",
    "Incremental": "NewClusterWithIncrementalUpgrade",
    "InPlaceOnly": "None",
}
_DELETION_DELAY_SECONDS = 60  # KubeRay's default
# Ray's autoscaler deletes a worker that does not run after this time, and requests it again, forever. Ray's default of
# 300 s is shorter than the pull of a large image on a new node (ray-project/kuberay#4226).
_ALLOCATE_TIMEOUT = {"name": "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S", "value": "3600"}


def ray_service(resource: Resource, settings: Settings) -> Json:
    """The RayService of a resource. It has the same name as the resource."""
    # KubeRay compares clusters in the canonical form too: 0.5 and 500m are equal for it.
    spec, cluster = resource.spec, canonical(_ray_cluster(resource, settings))
    annotations = {naming.CLUSTER_CONFIG_ANNOTATION: fingerprint(cluster)}
    body = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {**owned_metadata(resource, resource.name), "annotations": annotations},
        "spec": {
            "serveConfigV2": serve_config_text(spec),
            "upgradeStrategy": _upgrade_strategy(spec),
            # At zero replicas, only the head can receive a request and wake the service.
            "excludeHeadPodFromServeSvc": spec.replicas.min > 0,
            **({"suspend": True} if spec.suspend else {}),
            # After an upgrade, the old cluster has this time to finish its requests.
            "rayClusterDeletionDelaySeconds": _deletion_delay_seconds(spec),
            "rayClusterConfig": completed(cluster),
        },
    }
    return canonical(body)


def _ray_cluster(resource: Resource, settings: Settings) -> Json:
    spec = resource.spec
    cluster: Json = {
        "rayVersion": spec.image.ray_version,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": spec.autoscaling.idle_worker_seconds,
            "imagePullPolicy": spec.image.pull_policy,
            "env": [_ALLOCATE_TIMEOUT],
            # KubeRay sets no security context for its sidecar, and a namespace that enforces `restricted` would refuse the head.
            "securityContext": security_context(),
        },
        "authOptions": {"mode": "token", "secretName": naming.token_secret(resource.name)},
        "headGroupSpec": {
            "rayStartParams": _head_start_params(),
            "template": head_template(resource, settings),
        },
        "workerGroupSpecs": [
            _worker_group(resource, settings, group, bounds, priority=MAX_WORKER_GROUPS - index)
            for index, (group, bounds) in enumerate(zip(spec.worker_groups, worker_bounds(spec), strict=True))
        ],
    }
    options = _fault_tolerance(spec.head.store())
    return cluster | ({"gcsFaultToleranceOptions": options} if options else {})


def _head_start_params() -> dict[str, str]:
    """Parameters of `ray start` for the head: no CPU for actors, and the resource that pins the ingress to the head.

    The ingress needs the resource only at zero replicas. It is always set, because a change between 0 and 1 replicas would
    otherwise start a new cluster. KubeRay puts the value into a shell command, so the JSON needs quotes.
    """
    resources = f"'{json.dumps({naming.HEAD_RESOURCE: 1})}'"
    return {"num-cpus": "0", "dashboard-host": "0.0.0.0", "resources": resources}  # noqa: S104 - KubeRay dials the pod


def _worker_group(
    resource: Resource, settings: Settings, group: WorkerGroup, bounds: Bounds, *, priority: int
) -> Json:
    spec = resource.spec
    gpus = gpus_per_worker(spec, group)
    # One Ray CPU per replica, regardless of the pod's cores, because GPUs decide how many replicas fit. KubeRay detects
    # only resources whose name ends in `gpu`. For a slice such as nvidia.com/mig-1g.5gb, num-gpus must be explicit.
    parameters = {"num-cpus": str(replicas_per_worker(spec, group))} | (
        {"num-gpus": str(gpus)} if gpus else {}
    )
    return {
        "groupName": group.name,
        # Where a new cluster starts; on the live one the count is the autoscaler's.
        "replicas": bounds.low,
        "minReplicas": bounds.low,
        "maxReplicas": bounds.high,
        "numOfHosts": 1,
        # Priorities count down from the maximum number of groups. So an appended group does not change the other groups,
        # and KubeRay adds it to the running cluster.
        "priority": priority,
        "rayStartParams": parameters,
        "template": worker_template(resource, settings, group),
    }


def _fault_tolerance(store: Redis | StateVolume | None) -> Json:
    """`gcsFaultToleranceOptions`; empty if the head stores the state itself."""
    match store:
        case None:
            return {}
        case StateVolume():
            storage = {"size": store.size}
            if store.storage_class_name is not None:
                storage["storageClassName"] = store.storage_class_name
            return {"backend": "rocksdb", "storage": storage}
        case Redis():
            # `backend` is unset, which means Redis. It is immutable once set, so a later change to `rocksdb` stays possible.
            options: Json = {"redisAddress": store.address}
            if store.password_secret_ref is not None:
                reference = {"name": store.password_secret_ref.name, "key": store.password_secret_ref.key}
                options["redisPassword"] = {"valueFrom": {"secretKeyRef": reference}}
            return options


def _deletion_delay_seconds(spec: Spec) -> int:
    """Seconds until KubeRay deletes an old cluster. With replicas.min 0, a request may also wait for a cold start first."""
    waking = spec.limits.cold_start_timeout_seconds if spec.replicas.min == 0 else 0
    return max(_DELETION_DELAY_SECONDS, grace_seconds(spec) + waking)


def _upgrade_strategy(spec: Spec) -> Json:
    strategy: Json = {"type": STRATEGIES[spec.upgrade.strategy]}
    if spec.upgrade.incremental is not None:
        strategy["clusterUpgradeOptions"] = spec.upgrade.incremental.model_dump(by_alias=True)
    return strategy
