# SPDX-License-Identifier: Apache-2.0
"""`make cluster`: a control plane with both CRDs, the stand-in for KubeRay and the operator, for manual experiments."""

import json
import os
import sys
from pathlib import Path

from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.cluster.crds import kuberay_crds
from sd_testkit.operator_process import outside
from sd_testkit.programs import ROOT, ensure

FOLDER = ROOT / ".cache" / "cluster"
_OURS = ROOT / "crds"
_APPLY = ("apply", "--server-side", "--force-conflicts", "-f")


def up(folder: Path = FOLDER) -> str:
    """Start every part that does not run yet. Return the next commands for the user."""
    control_plane = ControlPlane(folder)
    if control_plane.processes.running("kube-apiserver") is None:
        control_plane.start()
    install_crds(control_plane)
    environment = outside(control_plane)
    commands = {
        "kuberay": [sys.executable, "-m", "sd_testkit", "kuberay", str(control_plane.pod_network)],
        "operator": [sys.executable, "-m", "sd_operator"],
    }
    for name, command in commands.items():
        if control_plane.processes.running(name) is None:
            control_plane.processes.start(name, command, environment)
    kubectl = os.path.relpath(ensure("kubectl"))
    return (
        f"export KUBECONFIG={control_plane.kubeconfig}\n"
        f"alias kubectl={kubectl}\n"
        "kubectl apply -f examples/quickstart.yaml\n"
        "kubectl get sdservice -w\n"
        f"# logs: {folder}/*.log; `make cluster-stop` stops the cluster"
    )


def down(folder: Path = FOLDER) -> None:
    """Stop everything that `up` started, and nothing else."""
    control_plane = ControlPlane(folder)
    control_plane.processes.stop("operator", "kuberay")
    control_plane.stop()


def install_crds(control_plane: ControlPlane) -> None:
    """Install the CRDs of KubeRay and of this project, and wait until they are established.

    A CRD that is being deleted is created again.
    """
    install_kuberay_crds(control_plane)
    install_our_crd(control_plane)


def install_kuberay_crds(control_plane: ControlPlane) -> None:
    """Install the CRDs of KubeRay alone. A CRD that is being deleted is created again once it is gone."""
    found = json.loads(control_plane.kubectl("get", "crd", "-o", "json").stdout)["items"]
    going = [f"crd/{each['metadata']['name']}" for each in found if "deletionTimestamp" in each["metadata"]]
    if going:
        control_plane.kubectl("wait", "--for=delete", *going, "--timeout=90s")
    theirs = {"apiVersion": "v1", "kind": "List", "items": kuberay_crds()}
    control_plane.kubectl(*_APPLY, "-", stdin=json.dumps(theirs))


def install_our_crd(control_plane: ControlPlane) -> None:
    """Install the CRD of this project alone, and wait until it is established."""
    control_plane.kubectl(*_APPLY, str(_OURS))
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
