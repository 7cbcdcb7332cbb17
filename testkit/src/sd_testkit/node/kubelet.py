# SPDX-License-Identifier: Apache-2.0
"""The kubelet's configuration for any host with control groups of version 1 or 2, without systemd."""

from pathlib import Path

from sd_testkit.json_types import Json
from sd_testkit.node.cluster_network import DOMAIN
from sd_testkit.node.host import CGROUP


def configuration(folder: Path, socket: Path, authority: Path, address: str, port: int) -> Json:
    """Return a KubeletConfiguration.

    Args:
        folder: folder for its logs of pods.
        socket: the socket of containerd.
        authority: certificates of the clients that may call the kubelet.
        address: the node's address, not loopback.
        port: the port on that address.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{socket}",
        "address": address,
        "port": port,
        "clusterDNS": [address],
        "clusterDomain": DOMAIN,
        # The host has few cores. Requests share them, and no limit slows a container down while other cores are idle.
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
        # Without CAP_SYS_RESOURCE the kubelet cannot change limits of the kernel.
        "featureGates": {"KubeletInUserNamespace": True},
        "oomScoreAdj": 0,
        # The kubelet must not clean up the host's disk.
        "evictionHard": {"memory.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # A short period, so that the node status soon shows images that were added or removed.
        "nodeStatusReportFrequency": "10s",
    }
