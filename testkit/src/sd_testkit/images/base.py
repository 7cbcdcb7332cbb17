# SPDX-License-Identifier: Apache-2.0
"""A base image: a small Debian with Python and its venv module, built by debootstrap."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from sd_testkit.images.store import Store

BASE = "localhost/base:bookworm"
_SUITE = "bookworm"
_PACKAGES = "ca-certificates,python3,python3-venv"
_USELESS = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/locale", "usr/share/man", "var/log")


def ensure_base(store: Store) -> None:
    """Build the base image if it is missing.

    Raises:
        RuntimeError: debootstrap failed; the message has the end of its output.
    """
    if store.has(BASE):
        return
    with tempfile.TemporaryDirectory(dir=store.folder) as folder:
        root = Path(folder) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode:
            raise RuntimeError(f"debootstrap failed:\n{(done.stdout + done.stderr)[-2000:]}")
        for each in _USELESS:
            shutil.rmtree(root / each)
            (root / each).mkdir()
        dockerfile = Path(folder) / "Dockerfile"
        dockerfile.write_text('FROM scratch\nADD root /\nCMD ["bash"]\n')
        store.build(BASE, dockerfile, Path(folder))
