# SPDX-License-Identifier: Apache-2.0
"""A Gateway API implementation on the real node's address: Traefik, and the CRDs that its module was built against."""

import json
import os
import subprocess
from pathlib import Path

from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.node.node import ADDRESS
from sd_testkit.processes import Processes
from sd_testkit.programs import Program, ensure, go

CLASS = "traefik"
_PROGRAM = Program("traefik")
_MODULE = "sigs.k8s.io/gateway-api"
_CRDS = "config/crd/standard"
_CLASS_OBJECT = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": CLASS},
    "spec": {"controllerName": "traefik.io/gateway-controller"},
}


def install_gateway_api(control_plane: ControlPlane) -> None:
    """Install the CRDs and the class, and wait until the CRDs are established.

    Controllers that run already must be restarted to watch them.
    """
    apply = ("apply", "--server-side", "--force-conflicts", "-f")
    control_plane.kubectl(*apply, str(_module_folder() / _CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    control_plane.kubectl(*apply, "-", stdin=json.dumps(_CLASS_OBJECT))


def start_gateway(control_plane: ControlPlane, processes: Processes) -> None:
    """Start Traefik on port 80 of the node's address. Traefik writes this address into the status of Gateways."""
    command: list[str | Path] = [
        ensure(_PROGRAM.name),
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        f"--entrypoints.web.address={ADDRESS}:80",
        "--providers.kubernetesgateway=true",
        f"--providers.kubernetesgateway.statusaddress.ip={ADDRESS}",
    ]
    processes.start("traefik", command, {"KUBECONFIG": str(control_plane.kubeconfig)})


def _module_folder() -> Path:
    """Return the folder of the Gateway API in Go's module cache, and download it if it is missing."""
    command = [go(), "mod", "download", "-json", _MODULE]
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    done = subprocess.run(
        command, cwd=_PROGRAM.folder, env=environment, capture_output=True, text=True, check=True
    )
    return Path(json.loads(done.stdout)["Dir"])
