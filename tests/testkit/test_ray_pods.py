# SPDX-License-Identifier: Apache-2.0
"""Pods around the templates of the rendered RayService, as KubeRay creates them for a real Ray."""

import pytest

from sd_operator.builders.ray_service import ray_service
from sd_operator.settings import Settings
from sd_testkit.kuberay.autoscaler_rights import autoscaler_rights
from sd_testkit.kuberay.objects import ray_cluster
from sd_testkit.kuberay.ray_pods import ray_pod


@pytest.fixture
def cluster(resource):
    """The RayCluster of a service on two CPU workers."""
    groups = [{"name": "cpu", "resources": {"cpu": "2", "memory": "4Gi"}}]
    wanted = ray_service(resource(gpusPerReplica=0, workerGroups=groups), Settings())
    wanted["metadata"]["uid"] = "uid-1"
    body = ray_cluster(wanted, "imagine-abcde")
    body["metadata"]["uid"] = "uid-2"
    return body


@pytest.fixture
def head(cluster):
    return ray_pod(cluster, "head", cluster["spec"]["headGroupSpec"])


@pytest.fixture
def worker(cluster):
    (group,) = cluster["spec"]["workerGroupSpecs"]
    return ray_pod(cluster, "worker", group)


def containers(pod):
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def variables(container):
    return {each["name"]: each.get("value") for each in container["env"]}


def test_the_head_starts_ray_as_kuberay_was_seen_to(head):
    """The words of a real KubeRay 1.7, with what our RayService asks for."""
    ray = head["spec"]["containers"][0]
    assert ray["command"] == ["/bin/bash", "-c", "--"]
    assert " ".join(ray["args"][0].split()) == (
        "ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-65536}; ray start --head --block --dashboard-agent-listen-port=52365"
        " --dashboard-host=0.0.0.0 --memory=4294967296 --metrics-export-port=8080 --no-monitor --num-cpus=0"
        """ --resources='{"sdservice-head": 1}'"""
    )


def test_a_worker_waits_for_the_head_and_joins_it(worker):
    (waiting,) = worker["spec"]["initContainers"]
    assert (
        "ray health-check --address imagine-abcde-head-svc.team.svc.cluster.local:6379" in waiting["args"][0]
    )
    start = worker["spec"]["containers"][0]["args"][0]
    assert "--address=imagine-abcde-head-svc.team.svc.cluster.local:6379" in start
    assert "--num-cpus=1" in start


def test_the_autoscaler_is_beside_the_head_and_may_change_its_cluster(cluster, head):
    _, sidecar = head["spec"]["containers"]
    assert sidecar["args"][0].startswith("ray kuberay-autoscaler ")
    account, role, binding = autoscaler_rights(cluster)
    assert head["spec"]["serviceAccountName"] == account["metadata"]["name"] == binding["subjects"][0]["name"]
    assert {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get", "patch"]} in role["rules"]


def test_every_container_has_the_token_by_reference(head, worker):
    for each in containers(head) + containers(worker):
        (token,) = [one for one in each["env"] if one["name"] == "RAY_AUTH_TOKEN"]
        assert token["valueFrom"] == {"secretKeyRef": {"name": "imagine-ray-token", "key": "auth_token"}}
        assert variables(each)["RAY_AUTH_MODE"] == "token"


def test_every_container_is_restricted(head, worker):
    """As Pod Security Standards want it, what KubeRay adds included."""
    for each in containers(head) + containers(worker):
        security = each["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["runAsNonRoot"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
