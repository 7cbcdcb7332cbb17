# SPDX-License-Identifier: Apache-2.0
"""The DaemonSets that keep images on the nodes of worker groups, and those that fill caches."""

import pytest

from sd_operator.api import parse
from sd_operator.builders.placement import GPU_NODE_LABELS
from sd_operator.builders.preload import brings_images, preload_daemon_sets, weights_daemon_sets
from sd_operator.observe.nodes import described
from sd_operator.settings import Settings

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


@pytest.fixture
def daemon_set(resource):
    def build(group=None, settings=None, **spec):
        wanted = resource(workerGroups=[{"name": "gpu", **(group or {})}], **spec)
        (built,) = preload_daemon_sets(wanted, settings or Settings())
        return built

    return build


@pytest.fixture
def pod(daemon_set):
    return lambda *args, **spec: daemon_set(*args, **spec)["spec"]["template"]["spec"]


@pytest.fixture
def weights(resource):
    """The pods that fill caches."""

    def build(settings=None, **spec):
        built = weights_daemon_sets(resource(**spec), settings or Settings())
        return [each["spec"]["template"]["spec"] for each in built]

    return build


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


def test_a_cache_that_workers_share_is_filled(weights):
    (built,) = weights(
        model={**HUB, "cache": CLAIM}, env=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]
    )
    assert built["volumes"] == [{"name": "cache", "persistentVolumeClaim": {"claimName": "weights"}}]
    assert built["securityContext"]["fsGroup"] == 1000
    (container,) = built["containers"]
    assert container["name"] == "weights"
    variables = {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
    assert variables["HF_HOME"] == "/cache/huggingface"
    assert variables["HTTPS_PROXY"] == "http://proxy:3128"
    assert variables["HF_TOKEN"] == {"secretKeyRef": {"name": "hf", "key": "token"}}
    assert container["volumeMounts"] == [{"name": "cache", "mountPath": "/cache"}]
    assert "resources" in container
    assert "nvidia.com/gpu" not in str(container)


def test_a_directory_of_the_node_is_filled(weights):
    settings = Settings(node_cache_directory="/mnt/weights")
    (built,) = weights(settings, model={**HUB, "cache": {"nodeDirectory": {}}})
    assert built["volumes"][0]["hostPath"]["path"] == "/mnt/weights"


def test_each_group_fills_its_own_nodes_which_are_those_of_the_images(resource):
    pools = [{"name": name, "nodeSelector": {"pool": name}} for name in "ab"]
    wanted = resource(workerGroups=pools, model={**HUB, "cache": CLAIM})
    images, caches = preload_daemon_sets(wanted, Settings()), weights_daemon_sets(wanted, Settings())
    for each in (images, caches):
        found = [body["spec"]["template"]["spec"]["nodeSelector"] for body in each]
        assert found == [{"pool": "a"}, {"pool": "b"}]
    assert [body["metadata"]["name"] for body in caches] == ["imagine-weights-a", "imagine-weights-b"]


@pytest.mark.parametrize(
    "model",
    [HUB, {**HUB, "cache": {"size": "5Gi"}}, {"preset": "shapes", "cache": CLAIM}],
    ids=["with the pod", "a volume per pod", "nothing to download"],
)
def test_nothing_else_is_filled(weights, pod, model):
    assert weights(model=model) == []
    built = pod(model=model)
    assert [each["name"] for each in built["containers"]] == ["preload"]
    assert "volumes" not in built


def test_a_lora_from_the_hub_is_fetched_too(weights):
    lora = {"name": "ink", "uri": "hf://owner/ink", "revision": "1" * 40}
    (built,) = weights(model={"preset": "shapes", "loras": [lora], "cache": CLAIM})
    *_, wanted, _, _ = built["containers"][0]["command"]
    assert "hf://owner/ink" in wanted


@pytest.fixture
def name(service):
    """Of the DaemonSet of a service with this name and spec."""

    def build(of="imagine", settings=None, uid="uid-1", **spec):
        identity = {"name": of, "namespace": "team", "uid": uid, "generation": 1}
        (built,) = preload_daemon_sets(parse(service(metadata=identity, spec=spec)), settings or Settings())
        return built["metadata"]["name"]

    return build


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"model": {"preset": "sdxl"}},
        {"replicas": {"min": 2, "max": 8}},
        {"imagePreload": {"mode": "Required", "timeoutSeconds": 60}},
        {"model": {**HUB, "cache": CLAIM}},
        {"workerGroups": [{"name": "other", "priorityClassName": "high"}]},
        {"podLabels": {"team": "ml"}},
    ],
    ids=lambda spec: next(iter(spec), "nothing"),
)
def test_services_that_want_the_same_images_on_the_same_nodes_share(name, spec):
    assert name() == name("other", uid="uid-2", **spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"image": {"tag": "2"}},
        {"image": {"pullPolicy": "Never"}},
        {"image": {"pullSecrets": [{"name": "registry"}]}},
        {"imagePreload": {"images": ["example.org/more:1"]}},
        {"workerGroups": [{"name": "gpu", "nodeSelector": {"pool": "l4"}}]},
        {"workerGroups": [{"name": "gpu", "tolerations": [{"key": "spot", "operator": "Exists"}]}]},
        {"workerGroups": [{"name": "gpu", "runtimeClassName": "nvidia"}]},
        {"gpuResourceName": "amd.com/gpu"},
    ],
    ids=lambda spec: next(iter(spec)),
)
def test_what_differs_in_image_or_nodes_is_not_shared(name, spec):
    assert name() != name(**spec)


def test_a_setting_of_the_platform_changes_the_shared_one_in_place(name):
    assert name() == name(settings=Settings(preload_priority_class="low"))


def test_a_shared_one_names_no_service_and_nobody_controls_it(daemon_set):
    built = daemon_set()
    key = built["metadata"]["name"].removeprefix("sdservice-preload-")
    labels = {
        "app.kubernetes.io/managed-by": "sd-operator",
        "app.kubernetes.io/component": "preload",
        "sdservice.dev/preload": key,
    }
    assert built["metadata"]["labels"] == built["spec"]["template"]["metadata"]["labels"] == labels
    assert built["spec"]["selector"]["matchLabels"] == {"sdservice.dev/preload": key}
    assert built["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "sdservice.dev/v1alpha1",
            "kind": "StableDiffusionService",
            "name": "imagine",
            "uid": "uid-1",
        }
    ]


def keys_of(pod):
    terms = pod["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    return [term["matchExpressions"][-2]["key"] for term in terms]


def test_without_a_selector_it_goes_to_nodes_with_gpus(pod):
    built = pod()
    assert "nodeSelector" not in built
    terms = built["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert terms[0] == {
        "matchExpressions": [
            {"key": "nvidia.com/gpu.present", "operator": "Exists"},
            # What the GPU operator leaves behind where a GPU has gone.
            {"key": "nvidia.com/gpu.present", "operator": "NotIn", "values": ["false", "0"]},
        ]
    }
    assert "karpenter.k8s.aws/instance-gpu-count" in keys_of(built)
    assert described(built).startswith("one of the labels nvidia.com/gpu.present, karpenter.k8s.aws/")


@pytest.mark.parametrize(
    ("resource_name", "own", "others"),
    [
        ("nvidia.com/mig-1g.5gb", "nvidia.com/gpu.present", "amd.com/gpu.family"),
        ("amd.com/gpu", "amd.com/gpu.family", "nvidia.com/gpu.present"),
        ("gpu.intel.com/i915", "intel.feature.node.kubernetes.io/gpu", "nvidia.com/gpu.present"),
    ],
)
def test_the_labels_are_those_of_the_vendor_and_of_clouds(pod, resource_name, own, others):
    found = keys_of(pod(gpuResourceName=resource_name))
    assert own in found
    assert others not in found
    assert "eks.amazonaws.com/instance-gpu-count" in found


def test_the_platform_may_have_labels_of_its_own(pod):
    settings = Settings(gpu_node_labels="accelerator, example.org/pool=a100")
    terms = pod(settings=settings)["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert [term["matchExpressions"][0] for term in terms[-2:]] == [
        {"key": "accelerator", "operator": "Exists"},
        {"key": "example.org/pool", "operator": "In", "values": ["a100"]},
    ]
    assert len(GPU_NODE_LABELS) >= len(terms) - 2


def test_how_nodes_are_paid_for_says_nothing_of_their_gpus(pod):
    terms = pod({"capacityType": "spot"})["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert [each["key"] for each in terms[0]["matchExpressions"]] == [
        "karpenter.sh/capacity-type",
        "nvidia.com/gpu.present",
        "nvidia.com/gpu.present",
    ]


def test_wishes_for_nodes_are_not_taken_over(pod):
    term = {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["l4"]}]}
    wish = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": term}]}
    assert pod({"affinity": {"nodeAffinity": wish}}) == pod()


def test_without_gpus_nothing_is_preloaded_unless_nodes_are_selected_or_it_is_required(resource):
    def brings(**spec):
        return brings_images(resource(gpusPerReplica=0, **spec).spec)

    assert not brings()
    assert brings(workerGroups=[{"name": "cpu", "nodeSelector": {"pool": "cpu"}}])
    assert brings(imagePreload={"mode": "Required"})
    assert not brings(workerGroups=[{"name": "cpu", "capacityType": "spot"}])
