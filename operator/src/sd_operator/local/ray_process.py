# SPDX-License-Identifier: Apache-2.0
"""A Ray of our own on this machine: own folder, own ports, own session, and ended to the last process.

`ray stop` would end every Ray of the user; here each process is known by the session it was started in.
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

_STOP_SECONDS = 4.0  # some of Ray's processes ignore SIGTERM; none of them holds anything worth more


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now; held together while they are drawn, so that no two are equal."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def is_free(port: int) -> bool:
    """Whether a server could listen on the loopback port."""
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
        folder: Ray's folder for this run, logs included; removed at the end.
        token: the token every request to the dashboard must carry.
        dashboard: URL of the dashboard.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    token: str
    dashboard: str
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        """Where `ray start` writes what it has to say."""
        self.output = self.folder / "ray-start.log"

    def check(self) -> None:
        """Raise LocalRunFailed, with what Ray said, if Ray has ended."""
        if self.process.poll() is not None:
            raise LocalRunFailed(
                f"Ray ended with exit code {self.process.returncode}", self.output.read_text(errors="replace")
            )

    def stop(self) -> None:
        """End every process of the session and remove the folder."""
        ours = _session(self.process.pid)
        for each in ours:
            _signal(each, signal.SIGTERM)
        _, alive = psutil.wait_procs(ours, timeout=_STOP_SECONDS)
        # What came up meanwhile, or would not go.
        for each in {*alive, *_session(self.process.pid)}:
            _signal(each, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=_STOP_SECONDS)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def start(*, gpus: int, cpus: int, environment: Mapping[str, str]) -> RayProcess:
    """Start Ray's head on loopback with token authentication on.

    Args:
        gpus: logical GPUs that Ray is told of; the engine looks for real ones itself.
        cpus: logical CPUs, one per replica at least.
        environment: further variables of Ray and of the replicas.

    Raises:
        LocalRunFailed: Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("sd_runtime") is None:
        raise LocalRunFailed("the runtime is not installed here: pip install 'sd-runtime[serve]'")
    # Short: Ray's sockets lie below it, and a socket path has 107 characters at most.
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
        # Nothing scales here, and nobody reads the logs of others: two processes less.
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
    """Processes of the session that `leader` began; Ray's children stay in it, orphans included."""
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
