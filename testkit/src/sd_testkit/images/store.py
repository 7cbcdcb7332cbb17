# SPDX-License-Identifier: Apache-2.0
"""Images and their layers in a private folder: buildah with its own storage."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("buildah", "debootstrap")
"""Programs, and the names of their Debian packages."""
_BUILD_SECONDS = 1800


@dataclass(frozen=True)
class Layer:
    """A layer of an image.

    Attributes:
        digest: of its contents, uncompressed.
        size: bytes of its contents.
    """

    digest: str
    size: int


def obstacle() -> str:
    """Return the reason why this host cannot build images, or an empty string if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "building images needs root on Linux"
    missing = [each for each in PACKAGES if shutil.which(each) is None]
    return f"building images needs apt-get install {' '.join(missing)}" if missing else ""


class Store:
    """The storage in which images are built and kept.

    Args:
        folder: folder for all data. The folder grows to about 10 GB.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, name: str) -> bool:
        """Return whether an image of that name exists."""
        return self._run("inspect", "--type", "image", name, check=False).returncode == 0

    def build(self, name: str, dockerfile: Path, context: Path, arguments: Sequence[str] = ()) -> None:
        """Build an image.

        Steps with unchanged inputs are not repeated.

        Raises:
            RuntimeError: a step failed; the message has the end of its output.
        """
        options = ["--isolation", "chroot", "--layers", "--format", "oci", *arguments]
        done = self._run("bud", *options, "-f", str(dockerfile), "-t", name, str(context), check=False)
        if done.returncode:
            raise RuntimeError(f"building {name} failed:\n{(done.stdout + done.stderr)[-4000:]}")

    def save(self, name: str, file: Path, reference: str) -> None:
        """Write an image into an archive, with the reference that a node will use for it."""
        self._run("push", "--disable-compression", name, f"docker-archive:{file}:{reference}")

    def run(self, name: str, *command: str) -> str:
        """Run a command in an image, as the image's user, and return its output.

        Raises:
            subprocess.CalledProcessError: the command failed.
        """
        container = self._run("from", name).stdout.strip()
        try:
            return self._run("run", "--isolation", "chroot", container, "--", *command).stdout
        finally:
            self._run("rm", container)

    def layers(self, name: str) -> list[Layer]:
        """Return the layers of an image, the lowest first."""
        told = json.loads(self._run("inspect", "--type", "image", name).stdout)
        records = self.folder / "storage/overlay-layers/layers.json"
        sizes = {
            each.get("diff-digest"): each.get("diff-size", 0) for each in json.loads(records.read_text())
        }
        return [Layer(digest, sizes.get(digest, 0)) for digest in told["OCIv1"]["rootfs"]["diff_ids"]]

    def remove(self) -> None:
        """Remove the store and all images in it."""
        self._run("rmi", "--all", "--force", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        places = ["--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")]
        command = ["buildah", *places, "--storage-driver", "overlay", *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=_BUILD_SECONDS)
