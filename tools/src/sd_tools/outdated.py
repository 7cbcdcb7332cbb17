# SPDX-License-Identifier: Apache-2.0
"""`make outdated`: Python packages and Go programs that have a newer release than the pinned one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from sd_testkit.programs import ALL_PROGRAMS, Program, go


@dataclass(frozen=True, order=True)
class Outdated:
    """A dependency with a newer release. `pinned` and `newest` are versions."""

    name: str
    pinned: str
    newest: str


def outdated() -> list[Outdated]:
    """Return all outdated dependencies by name.

    The function queries package registries.

    Raises:
        RuntimeError: a registry does not answer; the message has its error.
    """
    return sorted([*_packages(), *_programs()])


def _packages() -> Iterator[Outdated]:
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "list",
        "--outdated",
        "--format",
        "json",
        "--python",
        sys.executable,
    ]
    for each in json.loads(_said(command)):
        yield Outdated(each["name"], each["version"], each["latest_version"])


def _programs() -> Iterator[Outdated]:
    for program in ALL_PROGRAMS:
        told = json.loads(_said([go(), "list", "-m", "-u", "-json", program.module], program))
        if "Update" in told:
            yield Outdated(f"{program.name} ({program.module})", told["Version"], told["Update"]["Version"])


def _said(command: list[str], program: Program | None = None) -> str:
    folder = program.folder if program is not None else None
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout
