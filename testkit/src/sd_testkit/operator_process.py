# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_operator` as a process of its own, that can be stopped and started."""

import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from sd_testkit.chart import Account
from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.processes import Processes


def outside(control_plane: ControlPlane, account: Account | None = None) -> dict[str, str]:
    """Environment of an operator beside a cluster: no ports of its own, and names of Services mean nothing there.

    With an account it has the rights and the Lease of the chart's pod; without one it is the administrator.
    """
    environment = {
        "KUBECONFIG": str(control_plane.kubeconfig),
        "SDSERVICE_PROBE_PORT": "0",
        "SDSERVICE_METRICS_PORT": "0",
        "SDSERVICE_DASHBOARD_URL": "",
    }
    if account is None:
        return environment
    return environment | {
        "KUBECONFIG": str(account.kubeconfig),
        "SDSERVICE_NAMESPACE": account.namespace,
        "SDSERVICE_LEADER_ELECTION": "true",
    }


class OperatorProcess:
    """The operator of this checkout; its log is in the folder.

    Args:
        control_plane: where it works.
        folder: for its log.
        command: what Python runs.
        account: as whom; None: as the administrator.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        folder: Path,
        command: Sequence[str] = ("-m", "sd_operator"),
        *,
        account: Account | None = None,
    ) -> None:
        self._command = [sys.executable, *command]
        self._processes = Processes(folder)
        self._log = folder / "operator.log"
        self._environment = outside(control_plane, account) | {
            "SDSERVICE_RESYNC_SECONDS": "2",
            "SDSERVICE_FULL_RESYNC_SECONDS": "2",
            "SDSERVICE_NODE_CACHE_DIRECTORY": "/mnt/weights",
        }

    def start(self, **more: str) -> None:
        """Start it, with more in its environment."""
        environment = {**self._environment, **more}
        self._processes.start("operator", self._command, environment)

    def stop(self) -> None:
        """End it."""
        self._processes.stop("operator")

    def kill(self) -> None:
        """End it without a word, as a node that dies does."""
        self._processes.kill("operator")

    def process(self) -> psutil.Process | None:
        """The running process.

        Raises:
            RuntimeError: it has ended; with the end of its log.
        """
        self._processes.check("operator")
        return self._processes.running("operator")

    def exit_code(self) -> int | None:
        """How it has ended by itself; None while it runs."""
        return self._processes.exit_code("operator")

    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text()
