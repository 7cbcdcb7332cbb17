# SPDX-License-Identifier: Apache-2.0
"""Real Ray on this host: the head and the workers of a RayService, each as the process that KubeRay starts in a pod.

The nodes share one address, so each fixed port of a pod is replaced by a free one. Serve's proxies share one port, as
pods do behind a Service.
"""

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from sd_testkit.cluster.control_plane import free_ports
from sd_testkit.json_types import Json

_ADDRESS = "127.0.0.1"
_ANSWER_SECONDS = 120.0
_STOP_SECONDS = 10.0
# How long a node waits for its agent. On a busy machine the node would otherwise end itself and its replicas.
_PATIENCE = {"RAY_agent_register_timeout_ms": "300000"}


class RayNode:
    """One Ray node: `ray start --block` in a shell.

    Args:
        command: the shell command.
        environment: the complete environment.
    """

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        # The path is short: Ray's sockets lie below it, and a socket path has 107 characters at most.
        self._folder = Path(tempfile.mkdtemp(prefix="sds-"))
        with (self._folder / "ray-start.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["/bin/bash", "-c", "--", f"ulimit -n 65536; {command}"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**environment, "RAY_TMPDIR": str(self._folder)},
                start_new_session=True,
            )

    def delete(self) -> None:
        """Send SIGTERM to the node, as the kubelet does."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill every process of the node at once. This simulates a machine that fails and closes its connections."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Freeze every process of the node.

        This simulates a machine that stops responding while its connections stay open.
        """
        self._signal(signal.SIGSTOP)

    def gone(self) -> bool:
        """Return whether the node has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Stop all processes of the node.

        The processes may shut down cleanly, since Ray would otherwise place actors on the node for a while.
        """
        asked = self._signal(signal.SIGTERM)
        psutil.wait_procs(asked, timeout=_STOP_SECONDS)
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> list[psutil.Process]:
        ours = [each for each in psutil.process_iter() if _is_of(each, self._process.pid)]
        for each in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(number)
        return ours


class RayHost:
    """The head and the workers of one RayService.

    The caller that starts one must stop it.

    Args:
        service: the RayService.
        variables: additional environment variables of all nodes.

    Attributes:
        url: URL of its Serve proxies.
    """

    def __init__(self, service: Json, variables: Mapping[str, str] | None = None) -> None:
        self._cluster = service["spec"]["rayClusterConfig"]
        self._variables = _PATIENCE | dict(variables or {})
        self._token = secrets.token_hex(32)
        self._gcs, self._dashboard, self._port = free_ports(3)
        self.url = f"http://{_ADDRESS}:{self._port}"

    def head(self) -> RayNode:
        """Start the head, or a new head in place of the former one."""
        agent, agent_grpc, client, metrics = free_ports(4)
        group = self._cluster["headGroupSpec"]
        options = {
            "port": self._gcs,
            "dashboard-port": self._dashboard,
            "dashboard-agent-listen-port": agent,
            "dashboard-agent-grpc-port": agent_grpc,
            "ray-client-server-port": client,
            "metrics-export-port": metrics,
            **group["rayStartParams"],
            "dashboard-host": _ADDRESS,
        }
        return RayNode(_ray_start("--head", options), self._environment(group["template"]))

    def worker(self) -> RayNode:
        """Start one more worker of the first group."""
        agent, agent_grpc, metrics = free_ports(3)
        group = self._cluster["workerGroupSpecs"][0]
        options = {
            "address": self._gcs_address,
            "dashboard-agent-listen-port": agent,
            "dashboard-agent-grpc-port": agent_grpc,
            "metrics-export-port": metrics,
            **group["rayStartParams"],
        }
        return RayNode(_ray_start("", options), self._environment(group["template"]))

    def before_the_head_goes(self) -> subprocess.Popen[bytes]:
        """Start the preStop hook that the kubelet runs in the head's pod before it sends SIGTERM."""
        template = self._cluster["headGroupSpec"]["template"]
        command = _container(template)["lifecycle"]["preStop"]["exec"]["command"]
        return subprocess.Popen(command, env=self._environment(template))

    def apply(self, config: Json) -> bool:
        """PUT a Serve config, as KubeRay does. Return whether Ray accepted it."""
        body = config | {"http_options": {"host": _ADDRESS, "port": self._port}}
        return self._send("PUT", "/api/serve/applications/", body) is not None

    def answers(self) -> bool:
        """Return whether Ray's dashboard answers."""
        return self._send("GET", "/api/serve/applications/") is not None

    def nodes(self) -> set[str]:
        """Return the ids of the nodes that Ray considers alive. Nodes that have just been killed are included."""
        told = self._send("GET", "/nodes?view=summary") or {"data": {"summary": []}}
        found = (each["raylet"] for each in told["data"]["summary"])
        return {each["nodeId"] for each in found if each.get("state") == "ALIVE"}

    def application(self, name: str) -> Json:
        """Return the status that Serve reports for an application.

        The result is empty if Serve has no such application.
        """
        told = self._send("GET", "/api/serve/applications/") or {"applications": {}}
        found: Json = told["applications"].get(name, {})
        return found

    @property
    def _gcs_address(self) -> str:
        return f"{_ADDRESS}:{self._gcs}"

    def _environment(self, template: Json) -> dict[str, str]:
        given = {each["name"]: each["value"] for each in _container(template)["env"] if "value" in each}
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "RAY_ADDRESS": self._gcs_address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            **given,
            **self._variables,
        }

    def _send(self, method: str, path: str, body: Json | None = None) -> Json | None:
        """Return the response of the dashboard, or None if it does not answer or refuses."""
        request = urllib.request.Request(
            f"http://{_ADDRESS}:{self._dashboard}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
                text = answer.read()
        except OSError:
            return None
        told: Json = json.loads(text) if text.strip().startswith(b"{") else {}
        return told


def _ray_start(role: str, options: Mapping[str, Any]) -> str:
    """Return a shell command. Values of rayStartParams are quoted for a shell already."""
    given = " ".join(f"--{name}={value}" for name, value in options.items())
    python = shlex.quote(sys.executable)
    common = (
        f"--block --disable-usage-stats --node-ip-address={_ADDRESS} --min-worker-port=0 --max-worker-port=0"
    )
    return f"{python} -m ray.scripts.scripts start {role} {common} {given}"


def _container(template: Json) -> Json:
    found: Json = template["spec"]["containers"][0]
    return found


def _is_of(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session
    except (ProcessLookupError, PermissionError):
        return False
