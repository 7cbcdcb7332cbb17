# SPDX-License-Identifier: Apache-2.0
"""A registry on loopback and the images in it: crane, of go-containerregistry."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from sd_testkit.cluster.control_plane import free_ports
from sd_testkit.node.layers import busybox_layer
from sd_testkit.node.private import PRIVATE_HOST, PrivateRegistry
from sd_testkit.processes import Processes
from sd_testkit.programs import ensure

HOST = "registry.test"
PAUSE = f"{HOST}/pause:1"
_READY_SECONDS = 30.0


class Registry:
    """A registry that stores its blobs in a folder.

    Nodes use the name `registry.test`, without the port.

    Args:
        folder: for its files; the caller that created it removes it.

    Attributes:
        private: the same images, behind a password.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._processes = Processes(folder)
        (self._port,) = free_ports(1)
        self.private = PrivateRegistry(self.url)

    @property
    def hosts(self) -> dict[str, str]:
        """Addresses of the registries that nodes know by name."""
        return {HOST: self.url, PRIVATE_HOST: self.private.url}

    @property
    def url(self) -> str:
        """URL of the registry: plain HTTP."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the registry, and push the image that keeps a pod's namespaces.

        Raises:
            RuntimeError: the registry ended or does not answer in time.
        """
        blobs = self._folder / "blobs"
        blobs.mkdir(exist_ok=True)
        address = f"--address=127.0.0.1:{self._port}"
        self._processes.start("crane", [ensure("crane"), "registry", "serve", address, f"--disk={blobs}"])
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            self._processes.check("crane")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the registry does not answer in {_READY_SECONDS:.0f} s")
            time.sleep(0.1)
        base = self._folder / "busybox.tar"
        busybox_layer(base)
        self._crane("append", "--oci-empty-base", "-f", str(base), "-t", self._at("base:1"))
        self._crane("mutate", "--set-platform=linux/amd64", "-t", self._at("base:1"), self._at("base:1"))
        entry = "--entrypoint=/bin/sleep,2147483647"
        self._crane("mutate", entry, "-t", self._at("pause:1"), self._at("base:1"))
        self.private.start()

    def stop(self) -> None:
        """Stop the registry. Its images are lost."""
        self.private.stop()
        self._processes.stop()
        shutil.rmtree(self._folder / "blobs", ignore_errors=True)

    def push(self, name: str, layers: Sequence[Path] = ()) -> str:
        """Push busybox with more layers on top as NAME, such as `worker:1`. Return its reference on a node."""
        files = [part for each in layers for part in ("-f", str(each))]
        if files:
            self._crane("append", "-b", self._at("base:1"), *files, "-t", self._at(name))
        else:
            self._crane("copy", self._at("base:1"), self._at(name))
        return f"{HOST}/{name}"

    def digest(self, name: str) -> str:
        """Return the digest of an image's manifest, with its algorithm."""
        return self._crane("digest", self._at(name)).strip()

    def size(self, name: str) -> int:
        """Return the bytes that a pull transfers: the stored size of an image's layers."""
        manifest: dict[str, list[dict[str, int]]] = json.loads(self._crane("manifest", self._at(name)))
        return sum(layer["size"] for layer in manifest["layers"])

    def _at(self, name: str) -> str:
        return f"127.0.0.1:{self._port}/{name}"

    def _crane(self, *arguments: str) -> str:
        result = subprocess.run(
            [str(ensure("crane")), *arguments], capture_output=True, text=True, check=False, timeout=600
        )
        if result.returncode:
            raise RuntimeError(f"crane {' '.join(arguments)}: {result.stderr}")
        return result.stdout

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v2/", timeout=5):  # noqa: S310 - http on loopback
                return True
        except (urllib.error.URLError, OSError):
            return False
