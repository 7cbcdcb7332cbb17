# SPDX-License-Identifier: Apache-2.0
"""The address of a service with an incremental upgrade follows its Gateway.

KubeRay creates the Gateway without labels.
"""

import json

import pytest

STEPS = {"strategy": "Incremental", "incremental": {"gatewayClassName": "steps"}}


@pytest.fixture
def watching_only(operator):
    """The operator without its periodic comparison: what it does, a watch has told it."""
    operator.stop()
    operator.start(SDSERVICE_RESYNC_SECONDS="3600", SDSERVICE_FULL_RESYNC_SECONDS="3600")
    yield operator
    operator.stop()
    operator.start()


@pytest.fixture
def gateway(apply, kubectl, namespace, get):
    """The Gateway of a service as KubeRay makes it, given an address by the controller of its class."""

    def at(address):
        live = get("rayservice")
        owner = {key: live[key] for key in ("apiVersion", "kind")}
        owner |= {key: live["metadata"][key] for key in ("name", "uid")} | {"controller": True}
        kind = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway"}
        metadata = {"name": "imagine-gateway", "ownerReferences": [owner]}
        listener = {"name": "http", "port": 80, "protocol": "HTTP"}
        apply({**kind, "metadata": metadata, "spec": {"gatewayClassName": "steps", "listeners": [listener]}})
        patch = json.dumps({"status": {"addresses": [{"type": "IPAddress", "value": address}]}})
        where = ("gateway", "imagine-gateway", "-n", namespace, "--subresource=status", "--type=merge")
        assert kubectl("patch", *where, "-p", patch).returncode == 0

    return at


async def test_the_address_follows_the_gateway_of_a_settled_service(
    watching_only, serving, gateway, kubectl, namespace, get, eventually, condition
):
    await serving(upgrade=STEPS)
    await eventually(lambda: condition("ConfigApplied")[0] == "True")
    assert get("sdservice")["status"]["url"] == f"http://imagine-serve-svc.{namespace}.svc:8000"
    for address in ("192.0.2.7", "192.0.2.8"):
        gateway(address)
        await eventually(lambda address=address: get("sdservice")["status"]["url"] == f"http://{address}")
    kubectl("delete", "gateway", "imagine-gateway", "-n", namespace)
    await eventually(lambda: "imagine-serve-svc" in get("sdservice")["status"]["url"])
