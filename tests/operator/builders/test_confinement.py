# SPDX-License-Identifier: Apache-2.0
"""A user who may write a StableDiffusionService gets only restricted pods, for any valid spec.

The rules are those of Pod Security Standards `restricted`. In tests/cluster the API server checks a few of them. Any image,
and any ServiceAccount and Secret of the namespace, are not covered: a user who may create pods can use them too.
"""

import json

import pytest
from hypothesis import HealthCheck, assume, given, settings

from sd_operator.api import parse
from sd_operator.builders.token_secret import token_secret
from sd_operator.errors import InvalidResource
from sd_operator.reconcile.desired import desired
from sd_operator.settings import Settings
from sd_testkit.generators.random_specs import specs

VOLUMES = {"emptyDir", "persistentVolumeClaim", "ephemeral"}
SECRET_FIELDS = {"valueFrom"}
TOKEN = "ray-token-of-the-test"
EXAMPLES = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.filter_too_much])


def resource(spec):
    identity = {"name": "imagine", "namespace": "team", "uid": "uid-1", "generation": 1}
    kind = {"apiVersion": "sdservice.dev/v1alpha1", "kind": "StableDiffusionService"}
    return parse({**kind, "metadata": identity, "spec": spec})


def objects(spec):
    try:
        return desired(resource(spec), Settings())
    except InvalidResource:
        assume(False)
        raise


def pods(bodies):
    """(role, pod spec) of every pod template."""
    for body in bodies:
        if body["kind"] == "RayService":
            cluster = body["spec"]["rayClusterConfig"]
            yield "head", cluster["headGroupSpec"]["template"]["spec"]
            for group in cluster["workerGroupSpecs"]:
                yield "worker", group["template"]["spec"]
        elif body["kind"] in {"DaemonSet", "Deployment"}:
            yield body["kind"], body["spec"]["template"]["spec"]


@EXAMPLES
@given(specs())
def test_pods_are_restricted(spec):
    for _, pod in pods(objects(spec)):
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
        assert all(VOLUMES & volume.keys() for volume in pod.get("volumes", []))
        assert not {"runAsUser", "seccompProfile", "sysctls"} & pod.get("securityContext", {}).keys()
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["runAsNonRoot"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert "privileged" not in security
            assert not [port for port in container.get("ports", []) if "hostPort" in port]
            assert container["resources"]["limits"]


@EXAMPLES
@given(specs())
def test_a_token_of_the_api_server_is_in_no_pod_but_the_heads_and_what_the_spec_names(spec):
    for role, pod in pods(objects(spec)):
        if role == "head":
            assert "serviceAccountName" not in pod
        elif role == "worker" and "serviceAccountName" in spec:
            assert pod["serviceAccountName"] == spec["serviceAccountName"]
        else:
            assert pod["automountServiceAccountToken"] is False
            assert "serviceAccountName" not in pod


@EXAMPLES
@given(specs())
def test_secrets_are_referred_to_and_only_where_they_are_used(spec):
    for role, pod in pods(objects(spec)):
        for container in pod["containers"]:
            secret = {each["name"] for each in container.get("env", []) if "valueFrom" in each}
            reads_weights = role == "worker" or container["name"] == "weights"
            assert secret <= ({"HF_TOKEN"} if reads_weights else set())


def test_the_token_of_ray_is_in_its_secret_alone(resource):
    made = resource()
    assert TOKEN in json.dumps(token_secret(made, TOKEN))
    assert TOKEN not in json.dumps(desired(made, Settings()))


@EXAMPLES
@given(specs())
def test_what_users_add_to_pods_takes_nothing_of_ours_away(spec):
    taken = {"sdservice.dev/name": "other", "app.kubernetes.io/managed-by": "somebody"}
    for body in objects({**spec, "podLabels": taken}):
        text = json.dumps(body)
        assert '"sdservice.dev/name": "other"' not in text
        assert "somebody" not in text


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": []},
        {"workerGroups": [{"name": "a", "securityContext": {}}]},
        {"workerGroups": [{"name": "a", "template": {}}]},
        {"head": {"hostNetwork": True}},
        {"env": [{"name": "LD_PRELOAD", "value": "/opt/x.so"}]},
        {"env": [{"name": "RAY_AUTH_MODE", "value": "disabled"}]},
        {"env": [{"name": "PYTHONPATH", "value": "/opt"}]},
        {"model": {"cache": {"nodeDirectory": {"path": "/"}}}},
        {"podAnnotations": {"container.apparmor.security.beta.kubernetes.io/ray-worker": "unconfined"}},
    ],
    ids=str,
)
def test_there_is_no_field_for_it(service, spec):
    with pytest.raises(InvalidResource):
        parse(service(metadata={"namespace": "team", "uid": "u", "generation": 1}, spec=spec))
