# SPDX-License-Identifier: Apache-2.0
"""Rules that every rendered object obeys."""

import pytest

from sd_operator import __version__
from sd_operator.api.crd import custom_resource_definition

CLUSTER_KINDS = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "PriorityClass"}


@pytest.fixture(params=["defaults", "everything"])
def objects(request, chart, everything):
    return chart(**({} if request.param == "defaults" else everything))


def test_every_object_has_only_fields_that_kubernetes_knows(objects):
    assert len(objects.typed()) >= len({each["kind"] for each in objects.bodies} - objects.UNTYPED)


def test_every_object_says_its_namespace_and_whose_it_is(objects):
    for body in objects.bodies:
        assert ("namespace" in body["metadata"]) == (body["kind"] not in CLUSTER_KINDS), body
        assert body["metadata"]["labels"]["app.kubernetes.io/instance"] == "sdservice", body


def test_no_two_objects_are_the_same(objects):
    names = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects.bodies
    ]
    assert len(names) == len(set(names))


def test_two_installations_do_not_meet(chart):
    """Beside what is of the cluster and there once: the CRD, and the PriorityClass that a value turns off."""
    first, second = (
        {
            (each["kind"], each["metadata"]["name"])
            for each in chart(namespace=name, watchOwnNamespace=True).bodies
            if each["kind"] in CLUSTER_KINDS
        }
        for name in ("a", "b")
    )
    assert {kind for kind, _ in first & second} == {"CustomResourceDefinition", "PriorityClass"}


def test_all_versions_are_one(chart):
    labels = chart().one("Deployment").metadata.labels
    assert labels["app.kubernetes.io/version"] == __version__
    assert labels["helm.sh/chart"] == f"stable-diffusion-operator-{__version__}"


def test_crd_is_that_of_the_operator_and_is_kept(chart):
    (crd,) = chart().raw("CustomResourceDefinition")
    wanted = custom_resource_definition()
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert crd["metadata"]["name"] == wanted["metadata"]["name"]
    assert crd["spec"] == wanted["spec"]
    assert chart(crd={"install": False}).raw("CustomResourceDefinition") == []
