# SPDX-License-Identifier: Apache-2.0
"""Start and stop the node: bridge, control groups, containerd, kubelet, kube-proxy, CoreDNS.

The stop removes all of them.
"""

import fcntl
import json
import shutil
import time
from pathlib import Path
from typing import TextIO

import yaml

from sd_testkit.cluster.control_plane import ControlPlane, free_ports
from sd_testkit.node import host
from sd_testkit.node.cluster_network import ClusterNetwork
from sd_testkit.node.containerd import Containerd
from sd_testkit.node.kubelet import configuration
from sd_testkit.node.registry import Registry
from sd_testkit.processes import Processes
from sd_testkit.programs import cache, ensure

NODE = "real-0"
"""Name of the node, and its `kubernetes.io/hostname`."""

ADDRESS = "10.244.0.1"
"""Address of the node, on the bridge of its pods."""

_READY_SECONDS = 120.0
_GPU = "nvidia.com/gpu"
_GPU_PATH = r"{.status.allocatable.nvidia\.com/gpu}"


class Node:
    """The one real node of a control plane.

    A second node on this host waits until the first has stopped.

    Args:
        control_plane: a control plane that this process started.
        registry: the only registry of the node.
        gpus: number of GPUs that the node reports. There is no device: the scheduler counts the GPUs, and containers
            see none.
    """

    def __init__(self, control_plane: ControlPlane, registry: Registry, gpus: int = 1) -> None:
        self._control_plane = control_plane
        self._registry = registry
        self._gpus = gpus
        self._folder = control_plane.folder / "node"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._processes = Processes(self._folder)
        self._lock: TextIO | None = None
        self._network = ClusterNetwork(control_plane, self._folder, self._processes)
        self.containerd = Containerd(self._folder, self._processes)

    def start(self) -> None:
        """Start the node and wait until it is Ready.

        Raises:
            RuntimeError: the host cannot run a node, a program ended, or the node is not Ready in time; the message
                has the end of the log.
        """
        if found := host.obstacle():
            raise RuntimeError(found)
        self._lock = _alone_on_this_host()
        host.make_bridge(f"{ADDRESS}/24")
        host.forward()
        host.make_cgroups()
        self.containerd.start(self._registry)
        self._network.start(NODE, ADDRESS)
        self._start_kubelet()
        self._until('{.status.conditions[?(@.type=="Ready")].status}', "True")
        if self._gpus:
            self._add_gpus()

    def _add_gpus(self) -> None:
        amounts = json.dumps({"status": {"capacity": {_GPU: str(self._gpus)}}})
        self._control_plane.kubectl("patch", "node", NODE, "--subresource=status", "-p", amounts)
        self._control_plane.kubectl(
            "label", "node", NODE, f"{_GPU}.present=true"
        )  # GPU feature discovery sets this label too.
        # The kubelet reads this with its next sync, ten seconds later.
        self._until(_GPU_PATH, str(self._gpus))

    def stop(self) -> None:
        """Stop the node and all its containers.

        Mounts, control groups, the bridge and all files except logs are removed.
        """
        if self._lock is None:
            return  # The folders that exist now belong to another node.
        self._network.stop()
        self._processes.stop("kubelet")
        sockets = self.containerd.shim_sockets()
        host.end_containers()
        self._processes.stop("containerd")
        host.end_shims(self._folder)
        for each in sockets:
            each.unlink(missing_ok=True)
        host.unmount_below(self._folder)
        host.remove_cgroups()
        host.remove_bridge()
        host.remove_links(self._folder)
        for each in filter(Path.is_dir, self._folder.iterdir()):
            shutil.rmtree(each, ignore_errors=True)
        self._lock.close()

    def run_in(self, container: str, *applet: str) -> str:
        """Run a busybox command in a container, and return its output."""
        name = f"run-{time.monotonic_ns()}"
        told = self.containerd.ctr(
            "tasks", "exec", "--exec-id", name, container, "/bin/busybox", *applet, check=False
        )
        return told.stdout.strip()

    def log(self, name: str) -> str:
        """Return the log of `kubelet` or `containerd` so far."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def _start_kubelet(self) -> None:
        kubeconfig = self._control_plane.add_user("kubelet", f"system:node:{NODE}", "system:nodes")
        (port,) = free_ports(1)
        settings = configuration(
            self._folder, self.containerd.socket, self._control_plane.folder / "ca.crt", ADDRESS, port
        )
        file = self._folder / "kubelet.yaml"
        file.write_text(yaml.safe_dump(settings))
        self._processes.start(
            "kubelet",
            [
                ensure("kubelet"),
                f"--config={file}",
                f"--kubeconfig={kubeconfig}",
                f"--root-dir={self._folder / 'kubelet'}",
                f"--cert-dir={self._folder / 'pki'}",
                f"--hostname-override={NODE}",
                f"--node-ip={ADDRESS}",
            ],
        )

    def _until(self, path: str, value: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            self._processes.check("kubelet")
            found = self._control_plane.kubectl("get", "node", NODE, "-o", f"jsonpath={path}", check=False)
            if found.stdout == value:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"the node is not ready, {path}:\n{self.log('kubelet')[-3000:]}")
            time.sleep(0.5)


def _alone_on_this_host() -> TextIO:
    """Wait until no other node runs on this host. The next node starts when the file is closed."""
    cache().mkdir(parents=True, exist_ok=True)
    file = (cache() / "node.lock").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file
