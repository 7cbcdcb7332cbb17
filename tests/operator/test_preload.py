# SPDX-License-Identifier: Apache-2.0
"""The DaemonSet of a worker group."""

import pytest

from sd_operator.builders.preload import preload_daemon_set
from sd_operator.settings import Settings


@pytest.fixture
def daemon_set(resource):
    def build(group=None, settings=None, **spec):
        wanted = resource(workerGroups=[{"name": "gpu", **(group or {})}], **spec)
        return preload_daemon_set(wanted, settings or Settings(), wanted.spec.worker_groups[0])

    return build


@pytest.fixture
def pod(daemon_set):
    return lambda *args, **spec: daemon_set(*args, **spec)["spec"]["template"]["spec"]


def test_each_image_is_kept_by_a_container_of_its_own(pod):
    images = ["example.org/sidecar:latest", "example.org/worker:2"]
    built = pod(image={"repository": "example.org/worker", "tag": "2"}, imagePreload={"images": images})
    assert [(each["name"], each["image"]) for each in built["containers"]] == [
        ("preload", "example.org/worker:2"),
        ("image-0", "example.org/sidecar:latest"),
    ]
    assert {tuple(each["command"]) for each in built["containers"]} == {("sleep", "2147483647")}
    # The API server would choose Always for :latest, and pull at each start.
    assert {each["imagePullPolicy"] for each in built["containers"]} == {"IfNotPresent"}


def test_it_asks_for_next_to_nothing_and_no_gpu(pod):
    built = pod(imagePreload={"images": ["example.org/sidecar:1"]})
    for container in built["containers"]:
        assert container["resources"] == {
            "requests": {"cpu": "1m", "memory": "8Mi"},
            "limits": {"memory": "32Mi"},
        }


def test_it_is_restricted_and_has_no_token(pod):
    built = pod()
    assert built["automountServiceAccountToken"] is False
    assert "hostPath" not in str(built)
    assert built["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_it_pulls_with_the_secrets_of_the_workers(pod):
    assert pod(image={"pullSecrets": [{"name": "registry"}]})["imagePullSecrets"] == [{"name": "registry"}]


def test_it_goes_to_the_nodes_of_the_group_and_beside_any_worker(pod):
    """Between workers an anti-affinity keeps distance; a preload pod has to be on the same nodes."""
    term = {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["l4"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    distance = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}
    built = pod(
        {
            "affinity": {"nodeAffinity": required, "podAntiAffinity": distance},
            "nodeSelector": {"zone": "a"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "priorityClassName": "workers",
        }
    )
    assert built["affinity"] == {"nodeAffinity": required}
    assert built["nodeSelector"] == {"zone": "a"}
    assert [each["key"] for each in built["tolerations"]] == ["spot", "nvidia.com/gpu"]
    assert "priorityClassName" not in built


def test_its_priority_is_the_platforms_choice(pod):
    settings = Settings(preload_priority_class="preloads")
    assert pod({"priorityClassName": "workers"}, settings)["priorityClassName"] == "preloads"


def test_all_nodes_pull_at_once(daemon_set):
    update = daemon_set()["spec"]["updateStrategy"]
    assert update == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}}


HUB = {"preset": None, "uri": "hf://owner/name", "revision": "0" * 40, "tokenSecretRef": {"name": "hf"}}
CLAIM = {"persistentVolumeClaim": {"claimName": "weights"}}


def test_a_cache_that_workers_share_is_filled(pod):
    built = pod(model={**HUB, "cache": CLAIM}, env=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}])
    assert built["volumes"] == [{"name": "cache", "persistentVolumeClaim": {"claimName": "weights"}}]
    assert built["securityContext"]["fsGroup"] == 1000
    image, weights = built["containers"]
    assert (weights["name"], weights["image"]) == ("weights", image["image"])
    variables = {each["name"]: each.get("value", each.get("valueFrom")) for each in weights["env"]}
    assert variables["HF_HOME"] == "/cache/huggingface"
    assert variables["HTTPS_PROXY"] == "http://proxy:3128"
    assert variables["HF_TOKEN"] == {"secretKeyRef": {"name": "hf", "key": "token"}}
    assert weights["volumeMounts"] == [{"name": "cache", "mountPath": "/cache"}]
    assert "resources" in weights
    assert "nvidia.com/gpu" not in str(built["containers"])


def test_a_directory_of_the_node_is_filled(pod):
    settings = Settings(node_cache_directory="/mnt/weights")
    built = pod(settings=settings, model={**HUB, "cache": {"nodeDirectory": {}}})
    assert built["volumes"][0]["hostPath"]["path"] == "/mnt/weights"
    assert [each["name"] for each in built["containers"]] == ["preload", "weights"]


@pytest.mark.parametrize(
    "model",
    [HUB, {**HUB, "cache": {"size": "5Gi"}}, {"preset": "shapes", "cache": CLAIM}],
    ids=["with the pod", "a volume per pod", "nothing to download"],
)
def test_nothing_else_is_filled(pod, model):
    built = pod(model=model)
    assert [each["name"] for each in built["containers"]] == ["preload"]
    assert "volumes" not in built


def test_a_lora_from_the_hub_is_fetched_too(pod):
    lora = {"name": "ink", "uri": "hf://owner/ink", "revision": "1" * 40}
    built = pod(model={"preset": "shapes", "loras": [lora], "cache": CLAIM})
    *_, wanted, _, _ = built["containers"][1]["command"]
    assert "hf://owner/ink" in wanted
