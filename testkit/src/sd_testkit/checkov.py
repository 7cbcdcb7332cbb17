# SPDX-License-Identifier: Apache-2.0
"""checkov, the linter for Kubernetes objects.

checkov is installed once, from hashed constraints, into a separate environment.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from sd_testkit.programs import ROOT, cache

_CONSTRAINTS = ROOT / "tools" / "checkov" / "constraints.txt"


class Finding(NamedTuple):
    """One rule that an object breaks. Objects are named KIND.NAMESPACE.NAME."""

    rule: str
    about: str
    says: str


def ensure() -> Path:
    """Return the path of the checkov command, and install checkov first if it is missing.

    Raises:
        CalledProcessError: the installation failed; the message of uv is on standard error.
    """
    target = cache() / "checkov" / hashlib.sha256(_CONSTRAINTS.read_bytes()).hexdigest()[:16]
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Two test runs may start the installation at the same time.
        if not (target / "done").exists():
            shutil.rmtree(target, ignore_errors=True)
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(target)], check=True)
            install = ["pip", "install", "-q", "--python", str(target / "bin/python"), "--require-hashes"]
            subprocess.run([*uv, *install, "-r", str(_CONSTRAINTS)], check=True)
            (target / "done").touch()
    return target / "bin" / "checkov"


def findings(folder: Path) -> set[Finding]:
    """Return the findings of checkov for the YAML files of a folder.

    Raises:
        RuntimeError: checkov cannot read a file.
    """
    arguments = [
        "--directory",
        str(folder),
        "--framework",
        "kubernetes",
        "--output",
        "json",
        "--skip-download",
    ]
    result = subprocess.run(
        [ensure(), *arguments, "--soft-fail"], capture_output=True, text=True, check=False, timeout=300
    )
    told = json.loads(result.stdout)
    unread = told.get("results", {}).get("parsing_errors", [])
    if unread or not told.get("summary", {}).get("passed"):
        raise RuntimeError(f"checkov cannot read {unread or folder}: {result.stderr[-2000:]}")
    return {
        Finding(each["check_id"], each["resource"], each["check_name"])
        for each in told["results"]["failed_checks"]
    }
