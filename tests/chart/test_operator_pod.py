# SPDX-License-Identifier: Apache-2.0
"""The operator's Deployment and the objects around it."""

import pytest

from sd_operator import naming

NAME = "sdservice-stable-diffusion-operator"


@pytest.fixture
def pod(chart):
    return lambda **values: chart(**values).one("Deployment").spec.template.spec


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_pods_are_restricted_and_write_nowhere(chart, kind):
    found = chart().one(kind)
    spec = found.spec.template.spec if kind == "Deployment" else found.spec
    assert spec.security_context.run_as_non_root is True
    assert spec.security_context.seccomp_profile.type == "RuntimeDefault"
    (container,) = spec.containers
    security = container.security_context
    assert security.allow_privilege_escalation is False
    assert security.capabilities.drop == ["ALL"]
    assert security.read_only_root_filesystem is True
    assert not spec.volumes
    assert container.resources.requests
    assert container.resources.limits


def test_probes_ask_the_health_of_the_operator(pod):
    (container,) = pod().containers
    ports = {each.name: each.container_port for each in container.ports}
    assert ports == {"probes": 8080, "metrics": 8081}
    probes = (container.startup_probe, container.readiness_probe, container.liveness_probe)
    assert [each.http_get.path for each in probes] == ["/healthz", "/readyz", "/healthz"]
    assert {each.http_get.port for each in probes} == {"probes"}


def test_one_replica_has_no_disruption_budget(chart):
    assert chart().all("PodDisruptionBudget") == []
    budget = chart(replicas=2).one("PodDisruptionBudget").spec
    assert budget.max_unavailable == 1
    assert budget.selector.match_labels == chart().one("Deployment").spec.selector.match_labels


def test_replicas_are_on_different_nodes_where_there_are_some(pod):
    keys = {
        each.topology_key: each.when_unsatisfiable for each in pod(replicas=2).topology_spread_constraints
    }
    assert keys == {
        "kubernetes.io/hostname": "ScheduleAnyway",
        "topology.kubernetes.io/zone": "ScheduleAnyway",
    }


@pytest.mark.parametrize(("elects", "strategy"), [(True, "RollingUpdate"), (False, "Recreate")])
def test_two_never_write_at_a_time(chart, elects, strategy):
    assert chart(leaderElection=elects).one("Deployment").spec.strategy.type == strategy


def test_digest_wins_over_tag(pod):
    digest = "sha256:" + "0" * 64
    assert pod().containers[0].image == "ghcr.io/sdservice/operator:0.1.0"
    assert pod(image={"tag": "1", "digest": digest}).containers[0].image.endswith(f"operator@{digest}")


def test_network_policy_lets_in_scrapes_and_out_what_is_needed(chart):
    policy = chart().one("NetworkPolicy", NAME).spec
    assert policy.policy_types == ["Ingress", "Egress"]
    assert policy.pod_selector.match_labels == chart().one("Deployment").spec.selector.match_labels
    assert [[port.port for port in rule.ports] for rule in policy.ingress] == [[8081]]
    assert [[port.port for port in rule.ports] for rule in policy.egress] == [
        [53, 53],
        [443, 6443],
        [8265, 8000],
    ]
    through = chart(ray={"throughApiServer": True}).one("NetworkPolicy", NAME).spec
    assert [[port.port for port in rule.ports] for rule in through.egress] == [[53, 53], [443, 6443]]


def test_services_let_in_the_pods_of_this_chart(chart):
    labels = chart().one("Deployment").spec.template.metadata.labels
    assert naming.OPERATOR_LABELS.items() <= labels.items()


def test_placeholders_never_evict_and_come_below_every_worker(chart):
    found = chart().one("PriorityClass")
    assert (found.metadata.name, found.value, found.preemption_policy) == ("sdservice-warm", -10, "Never")
