# SPDX-License-Identifier: Apache-2.0
"""Fingerprints that show which changes of a RayService need a new cluster, and which never reach the live one (pure).

https://github.com/ray-project/kuberay v1.7.0, ray-operator/controllers/ray/utils/util.go,
GenerateHashWithoutReplicasAndWorkersToDelete.
"""

import hashlib
import json

from sd_testkit.json_types import Json
from sd_testkit.kuberay.go_types import cluster_as_written

_MUTED_IN_GROUPS = ("replicas", "minReplicas", "maxReplicas", "scaleStrategy")
_MUTED_IN_PODS = ("tolerations", "schedulingGates")


def cluster_fingerprint(cluster: Json, groups: int | None = None) -> str:
    """Return a hash that is equal for two cluster specs if KubeRay starts no new cluster between them.

    Args:
        cluster: `spec.rayClusterConfig`.
        groups: number of worker groups to include; later groups were appended.
    """
    heard = cluster_as_written(cluster)
    heard["workerGroupSpecs"] = heard.get("workerGroupSpecs", [])[:groups]
    for muted in ("suspend", "upgradeStrategy"):
        heard.pop(muted, None)
    for group in heard["workerGroupSpecs"]:
        for muted in _MUTED_IN_GROUPS:
            group.pop(muted, None)
    for group in (heard["headGroupSpec"], *heard["workerGroupSpecs"]):
        for muted in _MUTED_IN_PODS:
            group["template"]["spec"].pop(muted, None)
    return hashlib.sha256(json.dumps(heard, sort_keys=True).encode()).hexdigest()[:32]
