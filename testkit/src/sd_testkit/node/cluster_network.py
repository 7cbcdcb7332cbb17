# SPDX-License-Identifier: Apache-2.0
"""Services and their names for pods of the node: kube-proxy with iptables, and CoreDNS."""

import socket
import subprocess
import time
from pathlib import Path

from sd_testkit.cluster.control_plane import ControlPlane, free_ports
from sd_testkit.processes import Processes
from sd_testkit.programs import ensure

DOMAIN = "cluster.local"
_READY_SECONDS = 60.0
_DNS_PORT = 53


class ClusterNetwork:
    """kube-proxy and CoreDNS of a node.

    Args:
        control_plane: the control plane that has the Services.
        folder: for their files; the caller that created it removes it.
        processes: starts and records the programs.
    """

    def __init__(self, control_plane: ControlPlane, folder: Path, processes: Processes) -> None:
        self._control_plane = control_plane
        self._folder = folder
        self._processes = processes

    def start(self, node: str, address: str) -> None:
        """Start both programs, CoreDNS on the node's address, and wait until names resolve.

        Raises:
            RuntimeError: CoreDNS ended or does not answer in time; the message has the end of its log.
        """
        self._start_proxy(node)
        self._start_dns(address)
        deadline = time.monotonic() + _READY_SECONDS
        while not _answers(address):
            self._processes.check("coredns")
            if time.monotonic() > deadline:
                raise RuntimeError(f"CoreDNS does not answer in {_READY_SECONDS:.0f} s")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop both programs, and remove the rules of kube-proxy."""
        self._processes.stop("coredns", "kube-proxy")
        cleanup = [str(ensure("kube-proxy")), "--cleanup"]
        subprocess.run(cleanup, check=False, capture_output=True, timeout=60)

    def _start_proxy(self, node: str) -> None:
        kubeconfig = self._control_plane.add_user("kube-proxy", "system:kube-proxy")
        health, metrics = free_ports(2)
        self._processes.start(
            "kube-proxy",
            [
                ensure("kube-proxy"),
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={node}",
                "--proxy-mode=iptables",
                # Without this setting, replies between two pods of the bridge skip the rules. Such replies come from an
                # address that the client did not dial.
                "--masquerade-all",
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0s",
                "--conntrack-tcp-timeout-close-wait=0s",
                f"--healthz-bind-address=127.0.0.1:{health}",
                f"--metrics-bind-address=127.0.0.1:{metrics}",
            ],
        )

    def _start_dns(self, address: str) -> None:
        kubeconfig = self._control_plane.add_user("coredns", "coredns", "system:masters")
        file = self._folder / "Corefile"
        # Names outside the cluster are not forwarded: pods of the tests do not need them.
        file.write_text(
            f".:{_DNS_PORT} {{\n  bind {address}\n  errors\n"
            f"  kubernetes {DOMAIN} {{\n    kubeconfig {kubeconfig} testkit\n  }}\n}}\n"
        )
        self._processes.start("coredns", [ensure("coredns"), "-conf", file])


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, _DNS_PORT), timeout=2):
            return True
    except OSError:
        return False
