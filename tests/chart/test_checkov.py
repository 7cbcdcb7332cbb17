# SPDX-License-Identifier: Apache-2.0
"""checkov checks all rendered objects: those of the chart, and those of the operator for every example.

Every finding is explained.
"""

import re

import pytest
import yaml

from sd_operator.api import parse
from sd_operator.cli.documents import services
from sd_operator.cli.render import objects
from sd_operator.settings import Settings
from sd_testkit.chart import rendered
from sd_testkit.checkov import findings

OPERATOR = r"Deployment\..*stable-diffusion-operator|Deployment\.sdservice-system\.sdo"
SELF_TEST = r"Pod\..*self-test"
PRELOAD = r"DaemonSet\.team\..*-(preload|weights)-.*"
RAY = r"Pod\.team\..*-(head|worker-.*)"

EXCEPTIONS = {
    (
        "CKV_K8S_43",
        f"{OPERATOR}|{SELF_TEST}",
    ): "image.digest pins it; a chart cannot know the digest of its own release",
    (
        "CKV_K8S_43",
        f"{PRELOAD}|{RAY}",
    ): "spec.image.digest pins it; by default the tag is that of the operator's release",
    (
        "CKV_K8S_15",
        f"{OPERATOR}|{SELF_TEST}",
    ): "tags are never moved, and image.pullPolicy is there for other clusters",
    ("CKV_K8S_15", f"{PRELOAD}|{RAY}"): "pulling always is what image preload is there to spare",
    ("CKV_K8S_38", f"{OPERATOR}|{SELF_TEST}"): "they talk to the API server; nothing else gets a token",
    ("CKV_K8S_38", r"Pod\.team\..*-head"): "KubeRay's autoscaler runs in the head's pod",
    ("CKV_K8S_8", f"{SELF_TEST}|{PRELOAD}"): "it ends, or sleeps: nothing in it could hang",
    ("CKV_K8S_9", f"{SELF_TEST}|{PRELOAD}"): "nobody sends it a request",
    ("CKV_K8S_8", RAY): "KubeRay puts its own liveness probe there",
    ("CKV_K8S_9", RAY): "KubeRay puts its own readiness probe there",
    ("CKV_K8S_11", PRELOAD): "a pod that sleeps uses none, and a limit would slow the download of weights",
    ("CKV_K8S_29", f"{PRELOAD}|{RAY}"): "each container has one; the pod needs none beside it",
    ("CKV_K8S_40", f"{PRELOAD}|{RAY}"): "user 1000 owns the files of the runtime image",
    ("CKV_K8S_35", RAY): "the hub's library takes its token from the environment; no other pod has it",
    (
        "CKV2_K8S_6",
        r"Pod\.team\.sdservice-preload-.*",
    ): "it sleeps, and belongs to no single service whose policy could select it",
    ("CKV_K8S_22", RAY): "Ray writes sessions, sockets and logs below /tmp",
}


def pods_of_ray(body):
    """The pod templates of a RayService as Pods: the linter knows no RayService."""
    cluster = body["spec"]["rayClusterConfig"]
    templates = {"head": cluster["headGroupSpec"]["template"]}
    templates |= {f"worker-{each['groupName']}": each["template"] for each in cluster["workerGroupSpecs"]}
    for role, template in templates.items():
        metadata = {**template["metadata"], "namespace": "team", "name": f"{body['metadata']['name']}-{role}"}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.fixture(scope="module")
def found(root, everything, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    bodies = [*rendered({}), *rendered({**everything, "fullnameOverride": "sdo"})]
    for path in sorted((root / "examples").glob("*.yaml")):
        for document in services(str(path), "team"):
            made = objects(parse(document.body), Settings(namespace="sdservice-system"))
            bodies += [each for each in made if each["kind"] != "RayService"]
            bodies += [pod for each in made if each["kind"] == "RayService" for pod in pods_of_ray(each)]
    for number, body in enumerate(bodies):
        (folder / f"{number}.yaml").write_text(yaml.safe_dump(body))
    return findings(folder)


def explained(finding):
    return {
        (rule, about)
        for rule, about in EXCEPTIONS
        if rule == finding.rule and re.fullmatch(about, finding.about)
    }


def test_no_finding_is_unexplained(found):
    assert sorted(each for each in found if not explained(each)) == []


def test_no_explanation_is_left_over(found):
    assert EXCEPTIONS.keys() == {each for finding in found for each in explained(finding)}
