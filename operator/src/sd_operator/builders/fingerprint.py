# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of a RayCluster config: equal if KubeRay starts no new cluster for the change (pure).

KubeRay compares the config with the running one, without bounds and tolerations. A change of bounds or tolerations alone
never reaches the live RayCluster. Any other change starts a new cluster, or does nothing with upgrade strategy None
(https://github.com/ray-project/kuberay v1.7.0, GenerateHashWithoutReplicasAndWorkersToDelete; kuberay#2331, #5326).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sd_operator import naming

MUTED_IN_GROUPS = ("replicas", "minReplicas", "maxReplicas", "scaleStrategy")
TOLERATIONS = "tolerations"
"""KubeRay does not compare this key of a pod, nor the keys of groups above."""


def fingerprint(cluster: Mapping[str, Any]) -> str:
    """A hash that is equal for two configs if KubeRay starts no new cluster for the change between them.

    The RayService has it as an annotation. KubeRay copies the annotation to a RayCluster when it creates or rewrites it.

    Args:
        cluster: `spec.rayClusterConfig`, as the operator renders it.
    """
    compared = {
        **cluster,
        "headGroupSpec": _compared(cluster["headGroupSpec"]),
        "workerGroupSpecs": [_compared(group, MUTED_IN_GROUPS) for group in cluster["workerGroupSpecs"]],
    }
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:16]


def _compared(group: Mapping[str, Any], muted: tuple[str, ...] = ()) -> Any:
    """The fields of a group that KubeRay compares."""
    template = group["template"]
    pod = {key: value for key, value in template["spec"].items() if key != TOLERATIONS}
    kept = {key: value for key, value in group.items() if key not in muted}
    return {**kept, "template": {**template, "spec": pod}}


def runs_other_config(ray_service: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether a RayCluster was created from another config than that of its RayService, except bounds and tolerations."""
    desired, live_config = (
        (each["metadata"].get("annotations") or {}).get(naming.CLUSTER_CONFIG_ANNOTATION)
        for each in (ray_service, live)
    )
    return None not in {desired, live_config} and desired != live_config
