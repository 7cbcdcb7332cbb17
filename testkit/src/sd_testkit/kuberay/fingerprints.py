# SPDX-License-Identifier: Apache-2.0
"""Which changes of a RayService need a new cluster, and which never reach the live one (pure)."""

import copy
import hashlib
import json
from typing import Any

Json = dict[str, Any]

_MUTED_IN_GROUPS = ("replicas", "minReplicas", "maxReplicas", "scaleStrategy")
_MUTED_IN_PODS = ("tolerations", "schedulingGates")


def cluster_fingerprint(cluster: Json) -> str:
    """Equal for two cluster specs between which KubeRay starts no new cluster."""
    heard = copy.deepcopy(cluster)
    for muted in ("suspend", "upgradeStrategy"):
        heard.pop(muted, None)
    for group in heard.get("workerGroupSpecs", []):
        for muted in _MUTED_IN_GROUPS:
            group.pop(muted, None)
    for group in (heard["headGroupSpec"], *heard.get("workerGroupSpecs", [])):
        for muted in _MUTED_IN_PODS:
            group["template"]["spec"].pop(muted, None)
    return digest(json.dumps(heard, sort_keys=True))


def digest(text: str) -> str:
    """A short fingerprint of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
