# SPDX-License-Identifier: Apache-2.0
"""The kubelet's configuration: what it needs on any host with control groups, version 1 or 2, without systemd."""

from pathlib import Path

from sd_testkit.json_types import Json
from sd_testkit.node.cluster_network import DOMAIN
from sd_testkit.node.host import CGROUP


def configuration(folder: Path, socket: Path, authority: Path, address: str, port: int) -> Json:
    """A KubeletConfiguration.

    Args:
        folder: for its logs of pods.
        socket: where containerd listens.
        authority: certificates of those who may call it.
        address: the node's, not loopback.
        port: where it listens there.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{socket}",
        "address": address,
        "port": port,
        "clusterDNS": [address],
        "clusterDomain": DOMAIN,
        # Few cores: requests share them, and limits hold nobody up while others rest.
        "cpuCFSQuota": False,
        "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(authority)}},
        "podLogsDir": str(folder / "logs"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        # Without CAP_SYS_RESOURCE limits of the kernel are what they are.
        "featureGates": {"KubeletInUserNamespace": True},
        "oomScoreAdj": 0,
        # The host's disk is not this node's to tidy up.
        "evictionHard": {"memory.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # Images that come and go are seen soon.
        "nodeStatusReportFrequency": "10s",
    }
