# SPDX-License-Identifier: Apache-2.0
"""A real control plane, the stand-in for KubeRay and the operator, each started once per session.

KUBECONFIG names an existing cluster instead; it then needs simulated or real nodes, and no KubeRay.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_testkit.control_plane import ControlPlane
from sd_testkit.kuberay import KubeRay
from sd_testkit.playground import install_crds
from sd_testkit.processes import Processes


class GivenCluster(ControlPlane):
    """The cluster that KUBECONFIG names: nothing is started or stopped."""

    @property
    def kubeconfig(self):
        return Path(os.environ["KUBECONFIG"])


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory):
    folder = tmp_path_factory.mktemp("control-plane")
    if "KUBECONFIG" in os.environ:
        yield GivenCluster(folder)
        return
    started = ControlPlane(folder)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def crds(control_plane):
    """KubeRay's CRDs and ours."""
    install_crds(control_plane)


@pytest.fixture(scope="session")
async def kuberay(control_plane, crds):
    """The stand-in for KubeRay, in this process."""
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        task = asyncio.create_task(KubeRay(api).run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Operator:
    """`python -m sd_operator` as a process of its own, that can be stopped and started."""

    def __init__(self, control_plane, folder):
        self._processes = Processes(folder)
        self._log = folder / "operator.log"
        self._environment = {
            "KUBECONFIG": str(control_plane.kubeconfig),
            "SDSERVICE_PROBE_PORT": "0",
            "SDSERVICE_RESYNC_SECONDS": "2",
            # Outside the cluster its service names mean nothing.
            "SDSERVICE_DASHBOARD_URL": "",
        }

    def start(self, **more):
        """Start it, with more in its environment."""
        environment = {**self._environment, **more}
        self._processes.start("operator", [sys.executable, "-m", "sd_operator"], environment)

    def stop(self):
        self._processes.stop("operator")

    def process(self) -> psutil.Process:
        self._processes.check("operator")
        return self._processes.running("operator")

    def log(self):
        return self._log.read_text()


@pytest.fixture(scope="session")
def operator(kuberay, control_plane, tmp_path_factory):
    running = Operator(control_plane, tmp_path_factory.mktemp("operator"))
    running.start()
    yield running
    running.stop()
    sys.stdout.write(running.log()[-20000:])


@pytest.fixture(scope="session")
def kubectl(control_plane):
    """Run kubectl; the test looks at the exit code."""

    def run(*arguments, stdin=None) -> subprocess.CompletedProcess[str]:
        return control_plane.kubectl(*arguments, stdin=stdin, check=False)

    return run


@pytest.fixture
def namespace(kubectl, request):
    """A fresh namespace, deleted with everything in it."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:30].strip("-")
    name = f"{words}-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def eventually(kubectl):
    """Wait until a condition holds; the bound is generous, and on failure the state of the cluster is told."""

    async def wait(condition, within=90):
        deadline = time.monotonic() + within
        while True:
            failure = None
            try:
                # Conditions call kubectl: off the loop, which also runs the stand-in.
                if await asyncio.to_thread(condition):
                    return
            except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
                failure = error
            if time.monotonic() > deadline:
                kinds = "sdservice,rayservice,raycluster,pods"
                found = kubectl("get", kinds, "-A", "-o", "wide").stdout
                told = kubectl("get", "sdservice,rayservice", "-A", "-o", "yaml").stdout
                raise AssertionError(f"not within {within} s\n{found}\n{told}") from failure
            await asyncio.sleep(0.3)

    return wait


@pytest.fixture
def get(kubectl, namespace):
    """The live object, or None."""

    def read(kind, name="imagine"):
        result = kubectl(
            "get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found", "--show-managed-fields"
        )
        return json.loads(result.stdout) if result.stdout else None

    return read


@pytest.fixture
def apply(kubectl, namespace):
    def send(body):
        result = kubectl("apply", "-n", namespace, "--validate=strict", "-f", "-", stdin=json.dumps(body))
        assert result.returncode == 0, result.stderr

    return send


@pytest.fixture
def told(get):
    """(status, reason, message) of a condition, once it was computed from the latest spec; else None."""

    def read(kind, name="imagine"):
        live = get("sdservice", name) or {}
        status = live.get("status", {})
        if status.get("observedGeneration") != live.get("metadata", {}).get("generation"):
            return None
        found = (each for each in status.get("conditions", []) if each["type"] == kind)
        return next(((each["status"], each["reason"], each["message"]) for each in found), None)

    return read


@pytest.fixture
def condition(told):
    """(status, reason) of a condition, likewise."""

    def read(kind, name="imagine"):
        found = told(kind, name)
        return None if found is None else found[:2]

    return read


@pytest.fixture
def serving(operator, apply, service, eventually, condition):
    """A service that is Ready."""

    async def bring_up(**spec):
        apply(service(spec=spec))
        await eventually(lambda: condition("Ready") == ("True", "Serving"))

    return bring_up
