# SPDX-License-Identifier: Apache-2.0
"""The API server's response to a StableDiffusionService, before the operator receives it."""

import json
import re

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from sd_operator.api import parse
from sd_operator.errors import InvalidResource
from sd_testkit.generators.random_specs import capacities

CRD = "stablediffusionservices.sdservice.dev"


@pytest.fixture
def submit(kubectl, namespace):
    """Send a resource as `kubectl apply` does, strictly and without keeping it."""

    def send(body):
        return kubectl(
            "apply",
            "-n",
            namespace,
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
            stdin=json.dumps(body),
        )

    return send


def test_crd_is_structural_and_established(crds, kubectl):
    found = json.loads(kubectl("get", "crd", CRD, "-o", "json").stdout)
    conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


def test_valid_resource_is_accepted(crds, submit, service):
    result = submit(service())
    assert result.returncode == 0, result.stderr


def test_invalid_example_is_refused_with_its_rule(crds, submit, service, invalid):
    result = submit(service(**invalid["patch"]))
    assert result.returncode != 0
    assert invalid.get("server", invalid["says"]) in result.stderr
    name = invalid["field"].rsplit(".", 1)[-1].split("[")[0]
    assert name in result.stderr or invalid["field"].startswith("metadata"), result.stderr


def is_valid(body):
    try:
        parse(body)
    except InvalidResource:
        return False
    return True


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.lists(capacities(), min_size=30, max_size=30))
def test_the_server_and_validate_agree_on_capacity(crds, kubectl, namespace, service, drawn):
    bodies = [
        {**service(metadata={"name": f"s-{number}"}), "spec": spec} for number, spec in enumerate(drawn)
    ]
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies})
    answer = kubectl("create", "-n", namespace, "--dry-run=server", "-o", "name", "-f", "-", stdin=items)
    accepted = set(re.findall(r"/(s-[0-9]+)$", answer.stdout, re.MULTILINE))
    refused = set(re.findall(r'"(s-[0-9]+)" is invalid', answer.stderr))
    assert len(accepted) + len(refused) == len(bodies), answer.stderr
    assert accepted == {body["metadata"]["name"] for body in bodies if is_valid(body)}


def test_every_example_is_accepted(crds, submit, root):
    for path in sorted((root / "examples").glob("*.yaml")):
        for body in yaml.safe_load_all(path.read_text()):
            result = submit(body)
            assert result.returncode == 0, f"{path.name}: {result.stderr}"


def test_defaults_are_written_by_the_server(crds, kubectl, namespace, service):
    answer = kubectl(
        "create", "-n", namespace, "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(service())
    )
    spec = json.loads(answer.stdout)["spec"]
    assert spec["limits"]["maxSide"] == 1024
    assert spec["workerGroups"][0]["name"] == "gpu"
    assert spec["workerGroups"][0]["resources"] == {"cpu": "4", "memory": "16Gi"}


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("spec.imagePreload", "Pulling of images to the nodes of the worker groups"),
        ("spec.imagePreload.mode", "Opportunistic: pull and report, never wait"),
        ("spec.replicas.max", "Maximum number of replicas"),
        ("status.conditions", "Ready first"),
    ],
)
def test_explain_reads_well(crds, kubectl, field, says):
    text = " ".join(kubectl("explain", f"sdservice.{field}").stdout.split())
    assert says in text


def test_short_names_and_category(crds, kubectl, namespace):
    for name in ("sdservice", "sds", "ray"):
        assert kubectl("get", name, "-n", namespace).returncode == 0
