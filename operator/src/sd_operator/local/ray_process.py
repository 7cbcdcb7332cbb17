# SPDX-License-Identifier: Apache-2.0
"""Starts and stops a private Ray on this machine, with its own folder, ports and session.

`ray stop` would stop every Ray of the user. Here, the processes to stop are found by the session that they belong to.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sd_operator import naming
from sd_operator.errors import LocalRunFailed

_STOP_SECONDS = 4.0  # some of Ray's processes ignore SIGTERM; they have no state to save


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now. All sockets stay open until the end, so that the ports differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def is_free(port: int) -> bool:
    """Whether a server can listen on the loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class RayProcess:
    """A running `ray start --head --block`.

    Attributes:
        folder: Ray's folder for this run, including logs. `stop` removes it.
        token: the token that every request to the dashboard needs.
        dashboard: URL of the dashboard.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    token: str
    dashboard: str
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        """Set the file for the output of `ray start`."""
        self.output = self.folder / "ray-start.log"

    def check(self) -> None:
        """Raise LocalRunFailed, with the output of Ray, if Ray has ended."""
        if self.process.poll() is not None:
            raise LocalRunFailed(
                f"Ray ended with exit code {self.process.returncode}; run with --verbose to see its output",
                self.output.read_text(errors="replace"),
            )

    def stop(self) -> None:
        """Stop every process of the session and remove the folder."""
        ours = _session(self.process.pid)
        for each in ours:
            _signal(each, signal.SIGTERM)
        _, alive = psutil.wait_procs(ours, timeout=_STOP_SECONDS)
        # Processes that started meanwhile, or that ignored SIGTERM.
        for each in {*alive, *_session(self.process.pid)}:
            _signal(each, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=_STOP_SECONDS)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def start(*, gpus: int, cpus: int, environment: Mapping[str, str]) -> RayProcess:
    """Start Ray's head on the loopback interface, with token authentication.

    Args:
        gpus: logical GPUs for Ray. The engine detects real GPUs itself.
        cpus: logical CPUs for Ray, at least one per replica.
        environment: additional variables for Ray and the replicas.

    Raises:
        LocalRunFailed: Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("sd_runtime") is None:
        raise LocalRunFailed(
            "the runtime is not installed on this machine: run pip install 'sd-runtime[serve]'"
        )
    # A short path: Ray's sockets are below it, and a socket path has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="sds-"))
    token = secrets.token_hex(32)
    gcs, dashboard, agent, agent_grpc, client, metrics = free_ports(6)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", f"--port={gcs}", f"--temp-dir={folder}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"),
        *(f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
        *("--min-worker-port=0", "--max-worker-port=0"),
        # Without autoscaling and without forwarding of logs, Ray runs two processes fewer.
        *("--no-monitor", "--include-log-monitor=false"),
        *(f"--num-gpus={gpus}", f"--num-cpus={cpus}", f'--resources={{"{naming.HEAD_RESOURCE}": 1}}'),
    ]
    variables = {**os.environ, **environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    with (folder / "ray-start.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=variables, start_new_session=True
        )
    return RayProcess(process, folder, token, f"http://127.0.0.1:{dashboard}")


def _session(leader: int) -> list[psutil.Process]:
    """Processes of the session that `leader` started. Ray's children stay in this session, including orphans."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == leader:
                found.append(psutil.Process(pid))
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    return found


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
