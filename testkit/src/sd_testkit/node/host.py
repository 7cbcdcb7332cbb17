# SPDX-License-Identifier: Apache-2.0
"""The parts of a real node that live on the host: mounts, control groups, a bridge."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

PLUGINS = Path("/usr/lib/cni")
BRIDGE = "sdservice0"
CGROUP = "sdservice-node"

_LOG_LINKS = Path("/var/log/containers")
_RUN = Path("/run/containerd")
_CGROUPS = Path("/sys/fs/cgroup")
# This is ten times the share of a process outside. With the share of one process, heads would not start within half a
# minute.
_SHARES = {"cpu.shares": "10240", "cpu.weight": "1000"}
_PACKAGES = {
    "runc": "runc",
    "ip": "iproute2",
    "umount": "mount",
    "busybox": "busybox-static",
    "iptables": "iptables",
}
_CNI_PLUGINS = ("bridge", "host-local", "loopback")
_CNI_PACKAGE = "containernetworking-plugins"
FAKETIME_PACKAGE = "libfaketime"
"""A program for the fault test of a standby with a wrong clock. A node does not need it."""
PACKAGES = (*_PACKAGES.values(), _CNI_PACKAGE, FAKETIME_PACKAGE)
"""The Debian packages of all these programs."""


def obstacle() -> str:
    """Return the reason why this host cannot run a node, or an empty string if it can."""
    if sys.platform != "linux":
        return f"a real node needs Linux, not {sys.platform}"
    if os.geteuid() != 0:
        return "a real node needs root: containers, mounts and control groups"
    if not _hierarchies():
        return f"a real node needs control groups with a memory controller below {_CGROUPS}"
    missing = {package for program, package in _PACKAGES.items() if shutil.which(program) is None}
    if any(not (PLUGINS / each).exists() for each in _CNI_PLUGINS):
        missing.add(_CNI_PACKAGE)
    return f"a real node needs apt-get install {' '.join(sorted(missing))}" if missing else ""


def make_bridge(address: str) -> None:
    """Create the bridge of the pods, with the node's address, such as 10.244.0.1/24."""
    remove_bridge()
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "add", address, "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")


def remove_bridge() -> None:
    """Remove the bridge, if there is one."""
    if Path("/sys/class/net", BRIDGE).exists():
        _run("ip", "link", "delete", BRIDGE)


def forward() -> None:
    """Allow packets between pods, and from pods to the addresses of Services."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def make_cgroups() -> None:
    """Create the group below which the kubelet creates those of pods. Its CPU share is that of many processes."""
    for each in _hierarchies():
        (each / CGROUP).mkdir(exist_ok=True)
        for name, share in _SHARES.items():
            file = each / CGROUP / name
            if file.exists():
                file.write_text(share)


def end_containers() -> None:
    """Kill every process in the group. This works without a kubelet, containerd or shim."""
    files = [file for each in _hierarchies() for file in (each / CGROUP).rglob("cgroup.procs")]
    found = {int(line) for file in files for line in file.read_text().split()}
    _kill([psutil.Process(pid) for pid in found if psutil.pid_exists(pid)])


def remove_cgroups() -> None:
    """Remove the group and all groups below it. Groups in which a process still runs remain."""
    for each in _hierarchies():
        below = sorted((each / CGROUP).rglob("*/"), key=lambda path: -len(path.parts))
        for group in (*below, each / CGROUP):
            with contextlib.suppress(OSError):
                group.rmdir()


def unmount_below(folder: Path) -> None:
    """Unmount everything below a folder, the innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split()[1].replace("\\040", " ") for line in lines]
    for point in reversed(points):
        if Path(point).is_relative_to(folder):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True, timeout=60)


def remove_links(folder: Path) -> None:
    """Remove the kubelet's log links into a folder, and the folder of containerd's sockets if it is unused."""
    for link in _LOG_LINKS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(folder):
            link.unlink()
    for each in (_LOG_LINKS, *(_RUN / name for name in ("s", "fifo", ""))):
        with contextlib.suppress(OSError):
            each.rmdir()


def end_shims(folder: Path) -> None:
    """Kill shims of a containerd in this folder that still run after it."""
    found = [
        each for each in psutil.process_iter(["cmdline"]) if _is_shim(each.info["cmdline"] or [], folder)
    ]
    _kill(found)


def _kill(processes: list[psutil.Process]) -> None:
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(processes, timeout=20)


def _is_shim(command: list[str], folder: Path) -> bool:
    """Return whether a process is a shim, by its program and by the containerd socket in its arguments."""
    is_one = bool(command) and Path(command[0]).name.startswith("containerd-shim")
    return is_one and any(part.startswith(f"{folder}/") for part in command)


def _hierarchies() -> list[Path]:
    """Return the folders of the hierarchies: one for version 2, or one per controller for version 1."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    if not (_CGROUPS / "memory").is_dir():
        return []
    return [each for each in _CGROUPS.iterdir() if (each / "cgroup.procs").exists() and not each.is_symlink()]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)
