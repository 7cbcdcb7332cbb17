# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_operator` as a separate process that a test can stop and start."""

import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from sd_testkit.chart import Account
from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.processes import Processes


def outside(control_plane: ControlPlane, account: Account | None = None) -> dict[str, str]:
    """Return the environment of an operator outside the cluster.

    The operator has no ports, and it cannot resolve names of Services.

    With an account the operator has the rights and the Lease of the chart's pod. Without one it is the administrator.
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
    """The operator of this checkout.

    The log is in the folder.

    Args:
        control_plane: the control plane that the operator uses.
        folder: folder of its log.
        command: the arguments for Python.
        account: the account of the operator; None: the administrator.
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
        """Start the operator, with additional environment variables."""
        environment = {**self._environment, **more}
        self._processes.start("operator", self._command, environment)

    def stop(self) -> None:
        """Stop the operator."""
        self._processes.stop("operator")

    def kill(self) -> None:
        """Kill the operator at once, as the failure of a node does."""
        self._processes.kill("operator")

    def process(self) -> psutil.Process | None:
        """The running process.

        Raises:
            RuntimeError: the process has ended; the message has the end of its log.
        """
        self._processes.check("operator")
        return self._processes.running("operator")

    def exit_code(self) -> int | None:
        """Return the exit code if the process ended by itself, or None while it runs."""
        return self._processes.exit_code("operator")

    def log(self) -> str:
        """Return the log so far."""
        return self._log.read_text()
