# SPDX-License-Identifier: Apache-2.0
"""A real node on this host: kubelet, containerd and runc, pulling images from a registry on loopback.

It joins a `ControlPlane` that this process has started, beside the simulated nodes. Pods have addresses of a bridge of
its own; the API server reaches what is simulated in them through `ControlPlane.pod_network`, as everywhere here. Services
and their names are kube-proxy's and CoreDNS's; names of the world outside are not known.
"""

from sd_testkit.node.host import obstacle
from sd_testkit.node.kuberay import GivenKubeRay
from sd_testkit.node.node import NODE, Node
from sd_testkit.node.private import PRIVATE_HOST, PrivateRegistry
from sd_testkit.node.registry import Registry

__all__ = ["NODE", "PRIVATE_HOST", "GivenKubeRay", "Node", "PrivateRegistry", "Registry", "obstacle"]
