# SPDX-License-Identifier: Apache-2.0
"""checkov, which lints Kubernetes objects: installed once, from hashed constraints, into an environment of its own."""

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
    """A rule that an object breaks; objects are named KIND.NAMESPACE.NAME."""

    rule: str
    about: str
    says: str


def ensure() -> Path:
    """The command, installed where it is not yet.

    Raises:
        CalledProcessError: it cannot be installed; uv's words are on standard error.
    """
    target = cache() / "checkov" / hashlib.sha256(_CONSTRAINTS.read_bytes()).hexdigest()[:16]
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs install once
        if not (target / "done").exists():
            shutil.rmtree(target, ignore_errors=True)
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(target)], check=True)
            install = ["pip", "install", "-q", "--python", str(target / "bin/python"), "--require-hashes"]
            subprocess.run([*uv, *install, "-r", str(_CONSTRAINTS)], check=True)
            (target / "done").touch()
    return target / "bin" / "checkov"


def findings(folder: Path) -> set[Finding]:
    """What it finds in the YAML files of a folder.

    Raises:
        RuntimeError: it cannot read a file.
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
        raise RuntimeError(f"checkov read nothing of {unread or folder}: {result.stderr[-2000:]}")
    return {
        Finding(each["check_id"], each["resource"], each["check_name"])
        for each in told["results"]["failed_checks"]
    }
