# SPDX-License-Identifier: Apache-2.0
"""A real node on this host: kubelet, containerd and runc, with images from a registry on loopback.

The node joins a `ControlPlane` that this process has started, beside the simulated nodes. Pods have addresses of
their own bridge. The API server reaches the simulated programs in them through `ControlPlane.pod_network`, as with
other nodes. kube-proxy and CoreDNS provide Services and their names. Names outside the cluster do not resolve.
"""

from sd_testkit.node.host import obstacle
from sd_testkit.node.kuberay import GivenKubeRay
from sd_testkit.node.node import NODE, Node
from sd_testkit.node.private import PRIVATE_HOST, PrivateRegistry
from sd_testkit.node.registry import Registry

__all__ = ["NODE", "PRIVATE_HOST", "GivenKubeRay", "Node", "PrivateRegistry", "Registry", "obstacle"]
