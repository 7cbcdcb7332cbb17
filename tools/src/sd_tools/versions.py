# SPDX-License-Identifier: Apache-2.0
"""The version of a release in every file that contains it. `make version VERSION=1.2.3` writes all of them."""

import re
from collections.abc import Mapping
from pathlib import Path

from sd_testkit.programs import ROOT

_PLACES = {
    # The distributions and the operator's default tag of the runtime image are derived from these two files.
    "operator/src/sd_operator/__init__.py": (r'(?<=^__version__ = ")[^"]+',),
    "serve_runtime/src/sd_runtime/__init__.py": (r'(?<=^__version__ = ")[^"]+',),
    "charts/stable-diffusion-operator/Chart.yaml": (r"(?<=^version: ).+", r"(?<=^appVersion: ).+"),
}
_FORM = r"\d+\.\d+\.\d+"


def stamped(root: Path = ROOT) -> Mapping[str, str]:
    """Return the current version by file."""
    return {
        f"{name} {pattern}": _first(pattern, (root / name).read_text())
        for name, patterns in _PLACES.items()
        for pattern in patterns
    }


def stamp(version: str, root: Path = ROOT) -> None:
    """Write a version into every file.

    Raises:
        ValueError: the version is not three numbers with dots between them.
    """
    if not re.fullmatch(_FORM, version):
        raise ValueError(f"the version must be three numbers such as 1.2.3; got {version!r}")
    for name, patterns in _PLACES.items():
        text = (root / name).read_text()
        for pattern in patterns:
            text = re.sub(pattern, version, text, count=1, flags=re.MULTILINE)
        (root / name).write_text(text)


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[0] if found else ""
