# SPDX-License-Identifier: Apache-2.0
"""A real control plane, the stand-in for KubeRay and the operator, each started once per session.

KUBECONFIG can name a running cluster instead, such as that of `make cluster`. No stand-in is started then.
"""

import asyncio
import json
import os
import sys
import time

import pytest
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, ApiException, Configuration

from sd_testkit.chart import service_account
from sd_testkit.cluster.audit import asked
from sd_testkit.cluster.control_plane import ControlPlane, GivenCluster
from sd_testkit.cluster.crds import gateway_crd
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
    """KubeRay's CRDs, those of this project, and the CRD of the Gateway API that KubeRay uses."""
    control_plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(gateway_crd()))
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
def chart_values():
    """Chart values for an operator outside the cluster, which cannot resolve names of Services."""
    return {"ray": {"throughApiServer": True}}


@pytest.fixture(scope="session")
def account(control_plane, crds, chart_values, tmp_path_factory):
    """The operator's identity: the ServiceAccount of the chart, with exactly the rights that the chart grants."""
    return service_account(control_plane, tmp_path_factory.mktemp("account"), **chart_values)


@pytest.fixture(scope="session")
def operator(kuberay, control_plane, account, tmp_path_factory):
    running = OperatorProcess(control_plane, tmp_path_factory.mktemp("operator"), account=account)
    running.start()
    yield running
    running.stop()
    sys.stdout.write(running.log()[-20000:])
    if control_plane.audit_log.exists():
        assert asked(control_plane.audit_log, account.user).refused == set(), "the chart grants too little"


@pytest.fixture
def serving(operator, apply, service, eventually, condition):
    """A service that is Ready."""

    async def bring_up(**spec):
        apply(service(spec=spec))
        await eventually(lambda: condition("Ready") == ("True", "Serving"))

    return bring_up


@pytest.fixture
async def through_service(control_plane, namespace):
    """Send a request to a Service through the API server's proxy. Return (status, body)."""
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


@pytest.fixture
def forbid(kubectl, namespace):
    """Make a policy refuse objects of a kind in the namespace with this message.

    Yield a function that removes the policy.
    """
    policies, made = [], "validatingadmissionpolicy,validatingadmissionpolicybinding"

    def lift():
        for each in policies:
            kubectl("delete", made, each, "--ignore-not-found")
        policies.clear()

    def refuse(group, resource, allowed="false", words="not in this namespace"):
        name = f"{namespace}-{resource}"
        rule = {
            "apiGroups": [group],
            "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE"],
            "resources": [resource],
        }
        policy = {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": allowed, "message": words}],
        }
        here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": here}
        for kind, spec in (
            ("ValidatingAdmissionPolicy", policy),
            ("ValidatingAdmissionPolicyBinding", binding),
        ):
            body = {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": kind,
                "metadata": {"name": name},
                "spec": spec,
            }
            done = kubectl("apply", "-f", "-", stdin=json.dumps(body))
            assert done.returncode == 0, done.stderr
        policies.append(name)
        return lift

    yield refuse
    lift()


@pytest.fixture
def enforced(kubectl, namespace):
    """Wait until the API server refuses this object. A new policy or quota takes a moment to become effective."""

    def wait(body):
        for _ in range(200):
            done = kubectl("apply", "-n", namespace, "--dry-run=server", "-f", "-", stdin=json.dumps(body))
            if done.returncode != 0:
                return
            time.sleep(0.3)
        raise AssertionError("it is not refused")

    return wait
