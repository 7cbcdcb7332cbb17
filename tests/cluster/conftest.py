# SPDX-License-Identifier: Apache-2.0
"""A real control plane, the stand-in for KubeRay and the operator, each started once per session.

KUBECONFIG names a running one instead, such as that of `make cluster`, without a stand-in of its own.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import uuid

import pytest
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, ApiException, Configuration

from sd_testkit.control_plane import ControlPlane, GivenCluster
from sd_testkit.kuberay import KubeRay
from sd_testkit.operator_process import OperatorProcess
from sd_testkit.playground import install_crds


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory):
    folder = tmp_path_factory.mktemp("control-plane")
    if "KUBECONFIG" in os.environ:
        yield GivenCluster()
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
        task = asyncio.create_task(KubeRay(api, control_plane.pod_network).run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(scope="session")
def operator(kuberay, control_plane, tmp_path_factory):
    running = OperatorProcess(control_plane, tmp_path_factory.mktemp("operator"))
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

    async def wait(condition, within=240):
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
            await asyncio.sleep(0.7)  # each look starts kubectl

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


@pytest.fixture
async def through_service(control_plane, namespace):
    """Send a request to a Service by the API server's proxy: (status, body)."""
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:

        async def send(method, service, path, body=None, **headers):
            url = f"/api/v1/namespaces/{namespace}/services/{service}/proxy{path}"
            sent = {"Accept": "*/*", "Content-Type": "application/json", **headers}
            request = await api.param_serialize(method, url, header_params=sent, body=body)
            try:
                response = await api.call_api(*request, _request_timeout=60)
            except ApiException as error:
                return error.status, error.body
            return response.status, await response.read()

        yield send
