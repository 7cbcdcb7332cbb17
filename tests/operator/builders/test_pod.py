# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.builders.pod import head_template, image, worker_template
from sd_operator.errors import InvalidResource
from sd_operator.settings import Settings

SETTINGS = Settings()
DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def worker(resource):
    def build(**spec):
        parsed = resource(**spec)
        return worker_template(parsed, SETTINGS, parsed.spec.worker_groups[0])

    return build


@pytest.fixture
def head(resource):
    return lambda **spec: head_template(resource(**spec), SETTINGS)


def variables(template):
    (container,) = template["spec"]["containers"]
    return {each["name"]: each.get("value") for each in container["env"]}


def test_credentials_of_a_trace_collector_reach_pods_by_reference_alone(resource):
    """Their value is read by the kubelet: neither the RayService nor a status nor `render` has it."""
    reference = {"secretKeyRef": {"name": "traces", "key": "headers"}}
    env = [
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://traces:4318"},
        {"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": reference},
    ]
    wanted = resource(env=env)
    for template in (
        head_template(wanted, SETTINGS),
        worker_template(wanted, SETTINGS, wanted.spec.worker_groups[0]),
    ):
        (container,) = template["spec"]["containers"]
        found = [each for each in container["env"] if each["name"].startswith("OTEL_")]
        assert found == env


@pytest.mark.parametrize(
    ("wanted", "reference"),
    [
        ({}, f"ghcr.io/sdservice/worker:{SETTINGS.runtime_tag}"),
        ({"tag": "1"}, "ghcr.io/sdservice/worker:1"),
        ({"repository": "host:5000/a", "tag": "1"}, "host:5000/a:1"),
        ({"repository": "a", "tag": "1", "digest": DIGEST}, f"a@{DIGEST}"),
    ],
)
def test_image_reference(resource, wanted, reference):
    assert image(resource(image=wanted).spec, SETTINGS) == reference


def test_gpus_are_requested_by_workers_only(worker, head):
    wanted = {"gpuResourceName": "amd.com/gpu", "workerGroups": [{"name": "a", "gpusPerWorker": 2}]}
    assert worker(**wanted)["spec"]["containers"][0]["resources"]["limits"]["amd.com/gpu"] == "2"
    assert "amd.com/gpu" not in head(**wanted)["spec"]["containers"][0]["resources"]["limits"]


def test_cpu_worker_asks_for_no_gpu_and_tolerates_no_gpu_taint(worker):
    pod = worker(gpusPerReplica=0)["spec"]
    assert set(pod["containers"][0]["resources"]["limits"]) == {"cpu", "memory"}
    assert "tolerations" not in pod


@pytest.mark.parametrize("build", ["worker", "head"])
def test_pods_are_restricted(build, request):
    (container,) = request.getfixturevalue(build)()["spec"]["containers"]
    context = container["securityContext"]
    assert context["runAsNonRoot"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_worker_has_no_service_account_token_unless_named(worker):
    assert worker()["spec"]["automountServiceAccountToken"] is False
    named = worker(serviceAccountName="models")["spec"]
    assert named["serviceAccountName"] == "models"
    assert named["automountServiceAccountToken"] is True


def test_model_token_reaches_workers_by_reference_only(worker, head):
    model = {"preset": None, "uri": "hf://a/b", "revision": "0" * 40, "tokenSecretRef": {"name": "hf"}}
    (container,) = worker(model=model)["spec"]["containers"]
    reference = {"secretKeyRef": {"name": "hf", "key": "token"}}
    assert {"name": "HF_TOKEN", "valueFrom": reference} in container["env"]
    assert "HF_TOKEN" not in variables(head(model=model))


@pytest.mark.parametrize(
    ("cache", "volume"),
    [
        ({}, {"emptyDir": {}}),
        (
            {"persistentVolumeClaim": {"claimName": "weights"}},
            {"persistentVolumeClaim": {"claimName": "weights"}},
        ),
        (
            {"size": "50Gi", "storageClassName": "fast"},
            {
                "ephemeral": {
                    "volumeClaimTemplate": {
                        "spec": {
                            "accessModes": ["ReadWriteOnce"],
                            "resources": {"requests": {"storage": "50Gi"}},
                            "storageClassName": "fast",
                            "volumeMode": "Filesystem",
                        }
                    }
                }
            },
        ),
        ({"nodeDirectory": {}}, {"hostPath": {"path": "/mnt/weights", "type": "Directory"}}),
    ],
    ids=["by default", "claim", "size", "node"],
)
def test_weights_are_kept_in(resource, head, cache, volume):
    parsed = resource(model={"preset": "sd21", "cache": cache})
    settings = Settings(node_cache_directory="/mnt/weights")
    template = worker_template(parsed, settings, parsed.spec.worker_groups[0])
    assert {"name": "cache", **volume} in template["spec"]["volumes"]
    (container,) = template["spec"]["containers"]
    assert {"name": "cache", "mountPath": "/cache"} in container["volumeMounts"]
    assert variables(template)["HF_HOME"] == "/cache/huggingface"
    assert variables(template)["SDSERVICE_COMPILE_CACHE"] == "/cache/compiled"
    # What a claim holds must be the runtime's user's to write.
    claimed = "persistentVolumeClaim" in volume or "ephemeral" in volume
    assert ("fsGroup" in template["spec"].get("securityContext", {})) == claimed
    assert "cache" not in [each["name"] for each in head()["spec"]["volumes"]]


def test_a_directory_of_the_node_needs_the_operators_leave(worker):
    with pytest.raises(
        InvalidResource, match=r"spec\.model\.cache\.nodeDirectory: .*NODE_CACHE_DIRECTORY is not set"
    ):
        worker(model={"preset": "sd21", "cache": {"nodeDirectory": {}}})


def test_claim_is_mounted_read_only_in_workers(worker, head):
    model = {"preset": None, "uri": "pvc://weights/sd21"}
    pod = worker(model=model)["spec"]
    claim = {"claimName": "weights", "readOnly": True}
    assert {"name": "model", "persistentVolumeClaim": claim} in pod["volumes"]
    mounts = pod["containers"][0]["volumeMounts"]
    assert {"name": "model", "mountPath": "/models/weights", "readOnly": True} in mounts
    assert len(head(model=model)["spec"]["volumes"]) == 1


def test_each_claim_of_model_and_loras_is_mounted_once(worker):
    loras = [
        {"name": name, "uri": f"pvc://{claim}/{name}"} for name, claim in (("a", "weights"), ("b", "style"))
    ]
    pod = worker(model={"preset": None, "uri": "pvc://weights/sd21", "loras": loras})["spec"]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"][2:]]
    assert claims == ["weights", "style"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"][2:]}
    assert mounts == {"model": "/models/weights", "model-1": "/models/style"}


def test_pod_fields_reach_both(worker, head):
    wanted = {
        "podLabels": {"team": "a", "sdservice.dev/name": "evil"},
        "podAnnotations": {"note": "b"},
        "env": [{"name": "OMP_NUM_THREADS", "value": "2"}],
        "image": {"pullSecrets": [{"name": "registry"}]},
        "sharedMemory": "1Gi",
    }
    for template in (worker(**wanted), head(**wanted)):
        assert template["metadata"]["labels"]["team"] == "a"
        assert template["metadata"]["labels"]["sdservice.dev/name"] == "imagine"
        assert template["metadata"]["annotations"] == {"note": "b"}
        assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        assert variables(template)["OMP_NUM_THREADS"] == "2"
        assert template["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] == "1Gi"


@pytest.mark.parametrize(("cpu", "threads"), [("2", "2"), (3, "3"), ("3500m", "3"), ("500m", "1")])
def test_a_cpu_replica_computes_on_all_cores_of_its_worker(worker, cpu, threads):
    group = {"name": "cpu", "resources": {"cpu": cpu, "memory": "4Gi"}}
    assert variables(worker(gpusPerReplica=0, workerGroups=[group]))["OMP_NUM_THREADS"] == threads


def test_the_users_number_of_threads_wins(worker):
    wanted = [{"name": "OMP_NUM_THREADS", "value": "1"}]
    assert variables(worker(gpusPerReplica=0, env=wanted))["OMP_NUM_THREADS"] == "1"


def test_requests_cross_to_the_model_in_one_event_loop_unless_told_otherwise(worker, head):
    name = "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"
    for template in (worker, head):
        assert variables(template())[name] == "0"
        assert variables(template(env=[{"name": name, "value": "1"}]))[name] == "1"


def test_a_worker_has_the_time_of_its_longest_request_to_end(worker):
    """And the time in which a replacement loads; Kubernetes kills later than Ray gives up."""
    template = worker(limits={"timeoutSeconds": 500})
    assert variables(template)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == "540"
    assert template["spec"]["terminationGracePeriodSeconds"] == 560


def test_the_head_goes_after_the_workers_that_drain(head):
    template = head(limits={"timeoutSeconds": 500})
    (container,) = template["spec"]["containers"]
    command = ["python", "-m", "sd_runtime.await_workers", "540"]
    assert container["lifecycle"] == {"preStop": {"exec": {"command": command}}}
    assert template["spec"]["terminationGracePeriodSeconds"] == 560
    assert variables(template)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == "0"
