# SPDX-License-Identifier: Apache-2.0
"""The open ports and their clients. tests/cluster covers creation, update and deletion of the policy."""

import pytest
from kubernetes.aio.client import V1NetworkPolicy

from sd_operator.builders.network_policy import network_policy
from sd_operator.settings import Settings

INSIDE = Settings(namespace="sdservice-system")
HUB = {"preset": None, "uri": "hf://a/b", "revision": "0" * 40}
OWN = {"podSelector": {"matchLabels": {"sdservice.dev/name": "imagine"}}}
OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "sdservice-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "stable-diffusion-operator"}},
}
KUBERAY = {
    "namespaceSelector": {},
    "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
}


@pytest.fixture
def policy(resource):
    return lambda settings=INSIDE, **spec: network_policy(resource(**spec), settings)["spec"]


def ports(rule):
    return [each["port"] for each in rule.get("ports", [])]


def outward(found):
    """Ports that are open to everything outside, but for DNS."""
    return [port for rule in found["egress"] if "to" not in rule for port in ports(rule) if port != 53]


def opened(found, port):
    """Peers that reach a port of the pods from outside the service; `anyone` where they are not named."""
    return [rule.get("from", "anyone") for rule in found["ingress"] if port in ports(rule)]


def test_it_is_a_policy_of_all_pods_of_the_service(resource):
    body = network_policy(resource(), INSIDE)
    V1NetworkPolicy.model_validate(body)
    assert {key: body["spec"][key] for key in ("podSelector", "policyTypes")} == {
        **OWN,
        "policyTypes": ["Ingress", "Egress"],
    }
    assert body["metadata"]["ownerReferences"][0]["uid"] == "uid-1"


def test_pods_of_the_service_reach_each_other_on_every_port(policy):
    found = policy()
    assert {"from": [OWN]} in found["ingress"]
    assert {"to": [OWN]} in found["egress"]


def test_requests_come_from_anywhere_and_the_dashboard_is_for_operators(policy):
    found = policy()
    assert opened(found, 8000) == ["anyone"]
    assert opened(found, 8265) == [[OPERATOR, KUBERAY]]
    assert opened(found, 8080) == [[{"namespaceSelector": {}}]]


@pytest.mark.parametrize("port", [6379, 10001, 52365, 44217], ids=["gcs", "client", "agent", "autoscaler"])
def test_other_ports_of_ray_are_closed(policy, port):
    assert opened(policy(), port) == []


def test_namespace_of_kuberay_narrows_it(policy):
    found = policy(Settings(namespace="sdservice-system", kuberay_namespace="kuberay"))
    ((_, kuberay),) = opened(found, 8265)
    assert kuberay["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kuberay"}}


def test_dashboard_asked_through_the_api_server_is_open_to_its_address(policy):
    assert opened(policy(Settings(dashboard_url="")), 8265) == ["anyone"]


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, [443, 6443]),
        ({"model": HUB}, [443, 6443]),
        ({"env": [{"name": "HF_ENDPOINT", "value": "http://hub.internal:8081/x"}]}, [443, 6443, 8081]),
        ({"env": [{"name": "HTTPS_PROXY", "value": "proxy:3128"}]}, [443, 3128, 6443]),
        (
            {"env": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://traces:4318"}]},
            [443, 4318, 6443],
        ),
        ({"env": [{"name": "HF_ENDPOINT", "value": "http://hub.internal"}]}, [80, 443, 6443]),
        ({"head": {"redis": {"address": "rediss://cache"}}}, [443, 6379, 6443]),
        ({"head": {"redis": {"address": "cache:7000"}}}, [443, 6443, 7000]),
        (
            {"head": {"faultTolerance": {"store": "redis", "redis": {"address": "cache:7000"}}}},
            [443, 6443, 7000],
        ),
        ({"head": {"faultTolerance": {"store": "volume"}}}, [443, 6443]),
        ({"head": {"redis": {"address": "cache:port"}}}, [443, 6379, 6443]),
    ],
    ids=str,
)
def test_only_ports_that_are_needed_lead_out(policy, spec, wanted):
    assert outward(policy(**spec)) == wanted


def test_port_of_the_hub_is_opened_for_weights_from_there_alone(policy):
    far = Settings(api_server_ports=(16443,))
    assert outward(policy(far)) == [16443]
    assert outward(policy(far, model=HUB)) == [443, 16443]
    lora = {"name": "a", "uri": "hf://a/b", "revision": "0" * 40}
    assert outward(policy(far, model={"loras": [lora]})) == [443, 16443]
