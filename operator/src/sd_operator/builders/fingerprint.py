# SPDX-License-Identifier: Apache-2.0
"""Equal for RayCluster configs between which KubeRay starts no new cluster (pure).

KubeRay compares the config with the one that runs, without bounds and tolerations: a change of those alone never
reaches the live RayCluster, a change of anything else makes a new one, and with upgrade strategy None nothing at all
(https://github.com/ray-project/kuberay v1.7.0, GenerateHashWithoutReplicasAndWorkersToDelete; kuberay#2331, #5326).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sd_operator import naming

MUTED_IN_GROUPS = ("replicas", "minReplicas", "maxReplicas", "scaleStrategy")
TOLERATIONS = "tolerations"
"""With the keys of groups above: what KubeRay does not compare."""


def fingerprint(cluster: Mapping[str, Any]) -> str:
    """Equal for two configs between which KubeRay starts no new cluster.

    The RayService carries it as an annotation, which KubeRay copies to a RayCluster when it makes or rewrites it.

    Args:
        cluster: `spec.rayClusterConfig` as we render it.
    """
    heard = {
        **cluster,
        "headGroupSpec": _heard(cluster["headGroupSpec"]),
        "workerGroupSpecs": [_heard(group, MUTED_IN_GROUPS) for group in cluster["workerGroupSpecs"]],
    }
    return hashlib.sha256(json.dumps(heard, sort_keys=True).encode()).hexdigest()[:16]


def _heard(group: Mapping[str, Any], muted: tuple[str, ...] = ()) -> Any:
    """A group without what KubeRay does not compare."""
    template = group["template"]
    pod = {key: value for key, value in template["spec"].items() if key != TOLERATIONS}
    kept = {key: value for key, value in group.items() if key not in muted}
    return {**kept, "template": {**template, "spec": pod}}


def runs_other_config(ray_service: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether a RayCluster was made from another config than its RayService has, bounds and tolerations aside."""
    wanted, made_from = (
        (each["metadata"].get("annotations") or {}).get(naming.CLUSTER_CONFIG_ANNOTATION)
        for each in (ray_service, live)
    )
    return None not in {wanted, made_from} and wanted != made_from
