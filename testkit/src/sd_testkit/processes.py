# SPDX-License-Identifier: Apache-2.0
"""Background processes that a later run of the testkit can find and end. Other processes are never touched."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_STOP_SECONDS = 20.0
# Go programs collect garbage at five times their live memory, not at twice. The host has enough memory but few cores.
_ENVIRONMENT = {"GOGC": "400"}


class Processes:
    """Processes with their logs in one folder. The folder also records their id and start time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._record = folder / "processes.json"
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[str, tuple[Sequence[str | Path], Mapping[str, str] | None]] = {}

    def start(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a program, also one that has ended before. Its output goes to NAME.log."""
        if self.running(name) is None:
            self._reap(int(self._known().get(name, (0,))[0]))
        self._started[name] = (command, environment)
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT, **(environment or {})},
                start_new_session=True,
            )
        self._children[process.pid] = process
        known = self._known()
        known[name] = [process.pid, psutil.Process(process.pid).create_time()]
        self._record.write_text(json.dumps(known))

    def restart(self, name: str) -> None:
        """Start a program again with its previous arguments."""
        self.start(name, *self._started[name])

    def running(self, name: str) -> psutil.Process | None:
        """Return the process of that name, if it still runs. The start time exposes an id that was reused."""
        pid, started = self._known().get(name, (0, 0.0))
        try:
            process = psutil.Process(int(pid))
            alive = pid and process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None

    def check(self, name: str) -> None:
        """Raise RuntimeError with the end of its log if the process has ended."""
        if self.running(name) is None:
            log = (self._folder / f"{name}.log").read_text(errors="replace")
            raise RuntimeError(f"{name} has ended:\n{log[-3000:]}")

    def kill(self, name: str) -> None:
        """Kill a process at once, as the failure of a node does. The process cannot shut down cleanly."""
        process = self.running(name)
        if process is not None:
            process.kill()
            process.wait(_STOP_SECONDS)
            self._reap(process.pid)

    def exit_code(self, name: str) -> int | None:
        """Return the exit code of a process that was started here (minus the signal's number), or None while it runs."""
        return self._children[int(self._known()[name][0])].poll()

    def stop(self, *names: str) -> None:
        """Stop processes in the given order. Without names, stop all of them, the last started first."""
        for name in names or tuple(reversed(self._known())):
            process = self.running(name)
            if process is not None:
                _end(process)
                self._reap(process.pid)
            known = self._known()
            known.pop(name, None)
            self._record.write_text(json.dumps(known))

    def _reap(self, pid: int) -> None:
        if pid in self._children:
            self._children.pop(pid).wait()

    def _known(self) -> dict[str, list[float]]:
        known: dict[str, list[float]] = json.loads(self._record.read_text()) if self._record.exists() else {}
        return known


def _end(process: psutil.Process) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(_STOP_SECONDS)
