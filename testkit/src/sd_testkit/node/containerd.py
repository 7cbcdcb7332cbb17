# SPDX-License-Identifier: Apache-2.0
"""containerd 2 and its configuration: runc, a bridge for pods, and a mirror on loopback as the only registry."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import tomli_w

from sd_testkit.node.host import BRIDGE, PLUGINS
from sd_testkit.node.registry import PAUSE, Registry
from sd_testkit.processes import Processes
from sd_testkit.programs import ensure

SUBNET = "10.244.0.0/24"
_READY_SECONDS = 60.0
_NAMESPACE = "k8s.io"


class Containerd:
    """containerd with all its data in one folder.

    Args:
        folder: for its files; the caller that created it removes it.
        processes: starts and records the program.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._folder = folder
        self._processes = processes

    @property
    def socket(self) -> Path:
        """The socket that the kubelet dials."""
        return self._folder / "containerd.sock"

    def start(self, registry: Registry) -> None:
        """Start containerd with the registry as its mirror, and wait until it answers.

        Raises:
            RuntimeError: containerd ended or does not answer in time; the message has the end of its log.
        """
        for host, url in registry.hosts.items():
            self._write(f"certs.d/{host}/hosts.toml", tomli_w.dumps(_mirror(url)))
        self._write("cni/pods.conflist", json.dumps(_network(self._folder)))
        self._write("config.toml", tomli_w.dumps(_configuration(self._folder, self.socket)))
        shim = ensure("containerd-shim-runc-v2").parent
        command = [str(ensure("containerd")), "--config", str(self._folder / "config.toml")]
        self._processes.start("containerd", command, {"PATH": f"{shim}:{os.environ['PATH']}"})
        deadline = time.monotonic() + _READY_SECONDS
        while self.ctr("version", check=False).returncode:
            self._processes.check("containerd")
            if time.monotonic() > deadline:
                raise RuntimeError(f"containerd does not answer in {_READY_SECONDS:.0f} s")
            time.sleep(0.2)

    def shim_sockets(self) -> list[Path]:
        """Return the sockets of the running shims. The sockets lie outside the folder, and remain after a shim is killed."""
        found = self._folder.glob("state/io.containerd.runtime.v2.task/*/*/bootstrap.json")
        return [Path(json.loads(each.read_text())["address"].removeprefix("unix://")) for each in found]

    def import_image(self, archive: Path) -> None:
        """Import an image from an archive, as if the node had pulled it."""
        self.ctr("images", "import", str(archive), seconds=900)

    def remove_image(self, reference: str) -> None:
        """Remove an image and its layers. Both are gone when this returns."""
        lines = self.ctr("images", "list").stdout.splitlines()[1:]
        digests = {name: digest for name, _, digest, *_ in (line.split() for line in lines)}
        # The kubelet has more names for the image: one by digest, and one by the digest of its configuration.
        names = [name for name, digest in digests.items() if digest == digests.get(reference)]
        if names:
            self.ctr("images", "remove", "--sync", *names)

    def ctr(
        self, *arguments: str, check: bool = True, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run ctr in the namespace of the kubelet's images and containers."""
        command = [str(ensure("ctr")), "--address", str(self.socket), "--namespace", _NAMESPACE, *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=seconds)

    def _write(self, name: str, text: str) -> None:
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def _configuration(folder: Path, socket: Path) -> dict[str, Any]:
    runc = {"SystemdCgroup": False, "Root": str(folder / "runc")}
    runtime = {
        "restrict_oom_score_adj": True,  # Without CAP_SYS_RESOURCE a score cannot be lowered.
        "disable_apparmor": True,
        # This path lies below the folder, so that the cleanup finds it.
        "netns_mounts_under_state_dir": True,
        "cni": {"bin_dirs": [str(PLUGINS)], "conf_dir": str(folder / "cni")},
        "containerd": {"runtimes": {"runc": {"runtime_type": "io.containerd.runc.v2", "options": runc}}},
    }
    images = {"pinned_images": {"sandbox": PAUSE}, "registry": {"config_path": str(folder / "certs.d")}}
    return {
        "version": 3,
        "root": str(folder / "root"),
        "state": str(folder / "state"),
        "grpc": {"address": str(socket)},
        "plugins": {"io.containerd.cri.v1.runtime": runtime, "io.containerd.cri.v1.images": images},
    }


def _mirror(url: str) -> dict[str, Any]:
    return {"server": url, "host": {url: {"capabilities": ["pull", "resolve"]}}}


def _network(folder: Path) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": SUBNET}]],
        "dataDir": str(folder / "addresses"),
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isDefaultGateway": True, "ipam": addresses}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}
