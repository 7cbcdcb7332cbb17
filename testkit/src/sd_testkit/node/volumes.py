# SPDX-License-Identifier: Apache-2.0
"""Volumes of the real node for claims without a StorageClass.

There is no provisioner that would create them on demand.
"""

import json
from pathlib import Path

from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.json_types import Json
from sd_testkit.node.node import NODE


def make_volumes(control_plane: ControlPlane, folder: Path, count: int) -> None:
    """Create PersistentVolumes of 1Gi from folders of the node. Each serves one claim, once."""
    for number in range(count):
        path = folder / f"volume-{number}"
        path.mkdir(parents=True)
        control_plane.kubectl("create", "-f", "-", stdin=json.dumps(_volume(path)))


def _volume(path: Path) -> Json:
    place = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": path.name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [place]}]}},
        },
    }
