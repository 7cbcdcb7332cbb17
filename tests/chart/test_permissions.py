# SPDX-License-Identifier: Apache-2.0
"""Permissions of the operator by scope of the installation, and permissions of users."""

import pytest

from sd_testkit.chart import role_rules


def granted(objects):
    """(group, resource, verb) of everything bound to the operator."""
    return {
        (group, resource, verb)
        for rule in role_rules(objects.bodies)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


SCOPES = [
    {},
    {"watchNamespaces": ["a", "b"]},
    {"watchOwnNamespace": True},
    {"ray": {"throughApiServer": True}},
]


@pytest.mark.parametrize("scope", SCOPES, ids=str)
def test_nothing_dangerous_is_granted(chart, scope):
    found = granted(chart(**scope))
    assert not [each for each in found if "*" in each]
    secrets = {verb for group, resource, verb in found if resource == "secrets"}
    assert secrets == {"get", "create"}
    assert not [
        each
        for each in found
        if each[1] in {"pods/exec", "pods/attach", "pods/portforward", "serviceaccounts/token"}
    ]
    assert not [each for each in found if each[0] == "rbac.authorization.k8s.io"]
    assert not [each for each in found if each[2] in {"impersonate", "escalate", "bind", "deletecollection"}]


def test_all_namespaces_are_served_by_a_cluster_role(chart):
    objects = chart()
    role = objects.one("ClusterRole", "sdservice-system-sdservice-stable-diffusion-operator")
    assert any("rayservices" in rule.resources for rule in role.rules)
    assert {each.metadata.name for each in objects.all("Role")} == {
        "sdservice-stable-diffusion-operator-lease",
        "sdservice-stable-diffusion-operator-self-test",
    }


@pytest.mark.parametrize(
    ("scope", "namespaces"),
    [({"watchNamespaces": ["a", "b"]}, ["a", "b"]), ({"watchOwnNamespace": True}, ["sdservice-system"])],
    ids=str,
)
def test_listed_namespaces_have_a_role_each_and_the_cluster_is_only_read(chart, scope, namespaces):
    objects = chart(**scope)
    roles = [
        each for each in objects.all("Role") if any("rayservices" in rule.resources for rule in each.rules)
    ]
    assert {each.metadata.namespace for each in roles} == {*namespaces}
    bound = [each for each in objects.all("RoleBinding") if each.role_ref.name == roles[0].metadata.name]
    assert {each.metadata.namespace for each in bound} == {*namespaces}
    role = objects.one("ClusterRole", "sdservice-system-sdservice-stable-diffusion-operator")
    assert {
        (resource, verb) for rule in role.rules for resource in rule.resources for verb in rule.verbs
    } == {
        ("nodes", "list"),
        ("customresourcedefinitions", "list"),
        ("customresourcedefinitions", "watch"),
        ("namespaces", "list"),
        ("namespaces", "watch"),
    }


def test_without_cluster_reads_and_user_roles_nothing_is_of_the_cluster(chart):
    objects = chart(watchOwnNamespace=True, rbac={"clusterReads": False, "aggregate": False})
    assert objects.all("ClusterRole") == objects.all("ClusterRoleBinding") == []


def test_the_lease_is_ours_alone(chart):
    (first, create) = chart().one("Role", "sdservice-stable-diffusion-operator-lease").rules
    assert (first.resource_names, first.verbs) == (["sd-operator"], ["get", "update"])
    assert (create.resource_names, create.verbs) == (None, ["create"])
    names = [each.metadata.name for each in chart(leaderElection=False).all("Role")]
    assert "sdservice-stable-diffusion-operator-lease" not in names


def test_the_proxy_of_services_is_granted_only_where_it_is_used(chart):
    proxied = ("", "services/proxy", "get")
    assert proxied not in granted(chart())
    assert proxied in granted(chart(ray={"throughApiServer": True}))


def test_roles_of_the_cluster_include_services(chart):
    to = "rbac.authorization.k8s.io/aggregate-to-"
    roles = {
        each.metadata.name.rpartition("-")[2]: each
        for each in chart().all("ClusterRole")
        if any(label.startswith(to) for label in each.metadata.labels)
    }
    included = {
        name: {label.removeprefix(to) for label in each.metadata.labels if label.startswith(to)}
        for name, each in roles.items()
    }
    assert included == {"view": {"view", "edit", "admin"}, "edit": {"edit", "admin"}}
    assert {verb for rule in roles["view"].rules for verb in rule.verbs} == {"get", "list", "watch"}
    assert "create" in roles["edit"].rules[0].verbs
