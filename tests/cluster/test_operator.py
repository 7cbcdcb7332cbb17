# SPDX-License-Identifier: Apache-2.0
"""The operator as a separate process, beside a real API server and the stand-in for KubeRay."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from sd_operator.cli import app

TRANSIENT = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation")


def ours(live):
    """What changes with each write of the operator and with each change of the spec."""
    metadata = live["metadata"]
    entries = [each for each in metadata["managedFields"] if each["manager"] == "sd-operator"]
    assert entries
    return metadata["generation"], entries


def worker_group(ray_service):
    return ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]


async def test_apply_makes_an_owned_ray_service(operator, apply, service, get, eventually):
    apply(service())
    await eventually(lambda: get("rayservice") is not None)
    owner = get("rayservice")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"]) == ("StableDiffusionService", get("sdservice")["metadata"]["uid"])
    managers = {
        entry["manager"]
        for entry in get("rayservice")["metadata"]["managedFields"]
        if "subresource" not in entry
    }
    assert "sd-operator" in managers
    assert get("secret", "imagine-ray-token")["data"]["auth_token"]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {
            "replicas": {"min": 0, "max": 1},
            "sharedMemory": "1024Mi",
            "env": [{"name": "TZ", "value": ""}],
            "workerGroups": [
                {
                    "name": "gpu",
                    "resources": {"cpu": "0.5", "memory": "2048Mi"},
                    "tolerations": [{"key": "spot", "operator": "Equal", "value": ""}],
                }
            ],
        },
    ],
    ids=["defaults", "what Go writes in another way"],
)
async def test_a_new_service_is_one_apply_of_its_ray_service(
    operator, apply, service, kubectl, namespace, get, eventually, condition, spec
):
    """KubeRay rewrites the object through its types when it adds its finalizer: that is no drift."""
    apply(service(spec=spec))
    await eventually(lambda: condition("Ready")[0] == "True")
    await eventually(lambda: condition("ConfigApplied")[0] == "True")
    live = get("rayservice")
    assert live["metadata"]["finalizers"], "KubeRay has written it"
    assert live["metadata"]["generation"] == 1, "what the operator sent is what KubeRay writes"
    events = json.loads(kubectl("get", "events", "-n", namespace, "-o", "json").stdout)["items"]
    applied = [each["message"] for each in events if each["reason"] == "Applied"]
    assert sum("RayService imagine" in message for message in applied) == 1, applied


async def test_every_example_becomes_a_ray_service(operator, apply, root, get, eventually):
    for path in sorted((root / "examples").glob("*.yaml")):
        for body in yaml.safe_load_all(path.read_text()):
            name = body["metadata"]["name"]
            apply(body)
            await eventually(lambda name=name: get("rayservice", name) is not None)


async def test_status_and_columns_follow_kuberay(serving, kubectl, namespace, get, eventually, condition):
    await serving()
    assert kubectl("wait", "--for=condition=Ready", "sdservice/imagine", "-n", namespace).returncode == 0
    await eventually(lambda: condition("ConfigApplied") == ("True", "ApplicationRunning"))
    header, row = kubectl("get", "sdservice", "-n", namespace).stdout.splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "MODEL", "REPLICAS", "PRELOAD", "URL", "AGE"]
    assert row.split()[:4] == ["imagine", "True", "Serving", "bundled://shapes"]
    assert f"http://imagine-serve-svc.{namespace}.svc:8000" in row
    status = get("sdservice")["status"]
    assert status["replicas"]["summary"] == "1/1 (1-1)"
    assert status["activeRayCluster"].startswith("imagine-")


async def test_edit_reaches_the_ray_service(serving, apply, service, get, eventually):
    await serving()
    apply(service(spec={"limits": {"maxSteps": 33}, "image": {"tag": "v2"}}))
    await eventually(lambda: "max_steps: 33" in get("rayservice")["spec"]["serveConfigV2"])
    container = worker_group(get("rayservice"))["template"]["spec"]["containers"][0]
    assert container["image"].endswith(":v2")


async def test_field_that_is_taken_away_is_taken_away(serving, apply, service, get, eventually):
    await serving(workerGroups=[{"name": "gpu", "nodeSelector": {"kubernetes.io/hostname": "gpu-0"}}])
    assert worker_group(get("rayservice"))["template"]["spec"]["nodeSelector"] == {
        "kubernetes.io/hostname": "gpu-0"
    }
    apply(service(spec={"workerGroups": [{"name": "gpu"}]}))
    await eventually(lambda: "nodeSelector" not in worker_group(get("rayservice"))["template"]["spec"])


async def test_drift_is_repaired(serving, kubectl, namespace, get, eventually):
    await serving()
    patch = json.dumps(
        {"spec": {"serveConfigV2": "applications: []"}, "metadata": {"labels": {"sdservice.dev/name": None}}}
    )
    kubectl("patch", "rayservice", "imagine", "-n", namespace, "--type=merge", "-p", patch)
    await eventually(lambda: "import_path" in get("rayservice")["spec"]["serveConfigV2"])
    assert get("rayservice")["metadata"]["labels"]["sdservice.dev/name"] == "imagine"


async def test_deleted_child_comes_back(serving, kubectl, namespace, preloads, eventually):
    await serving()
    (before,) = preloads()
    kubectl("delete", "daemonset", before["metadata"]["name"], "-n", namespace)

    def is_another():
        return [each["metadata"]["uid"] != before["metadata"]["uid"] for each in preloads()] == [True]

    await eventually(is_another)


async def test_what_is_no_longer_wanted_is_pruned(serving, apply, service, preloads, eventually):
    pools = [{"name": each, "nodeSelector": {"kubernetes.io/hostname": each}} for each in ("gpu-0", "gpu-1")]
    await serving(workerGroups=pools)
    first, second = sorted(preloads(), key=lambda each: str(each["spec"]["template"]["spec"]["nodeSelector"]))
    # Both go once no cluster runs what they keep: the new one has another image and one group only.
    apply(service(spec={"workerGroups": pools[:1], "image": {"tag": "2"}}))
    await eventually(
        lambda: second["metadata"]["uid"] not in {each["metadata"]["uid"] for each in preloads()}
    )
    await eventually(lambda: first["metadata"]["uid"] not in {each["metadata"]["uid"] for each in preloads()})
    assert len(preloads()) == 1


async def test_delete_is_garbage_collection_even_while_the_operator_is_down(
    serving, operator, kubectl, namespace, get, preloads, eventually
):
    await serving()
    (shared,) = preloads()
    operator.stop()
    try:
        kubectl("delete", "sdservice", "imagine", "-n", namespace, "--wait=false")
        for kind, name in (
            ("sdservice", "imagine"),
            ("rayservice", "imagine"),
            ("secret", "imagine-ray-token"),
            ("daemonset", shared["metadata"]["name"]),
        ):
            await eventually(lambda kind=kind, name=name: get(kind, name) is None)
    finally:
        operator.start()


async def test_nothing_changed_is_no_write_even_across_a_restart(
    serving, operator, apply, service, get, preloads, eventually, condition
):
    await serving()
    await eventually(lambda: condition("ConfigApplied") == ("True", "ApplicationRunning"))
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "ImagesPresent"))

    def is_read_back():
        conditions = {each["type"]: each["message"] for each in get("sdservice")["status"]["conditions"]}
        return conditions["ConfigApplied"] == "Ray runs the configuration of this spec."

    await eventually(is_read_back)
    kinds = {"sdservice": "imagine", "secret": "imagine-ray-token"}

    def versions():
        # KubeRay writes the status of the RayService whenever it likes. The other service joins the owners of the DaemonSet.
        found = {kind: get(kind, name)["metadata"]["resourceVersion"] for kind, name in kinds.items()}
        generations = [each["metadata"]["generation"] for each in preloads()]
        return {**found, "rayservice": ours(get("rayservice")), "daemonset": generations}

    before, told = versions(), get("sdservice")["status"]
    operator.stop()
    operator.start()
    # Once a service made after the restart is Ready, the first one has been looked at several times.
    apply(service(metadata={"name": "later"}))
    await eventually(lambda: condition("Ready", "later") == ("True", "Serving"))
    assert get("sdservice")["status"] == told
    assert versions() == before


async def test_failed_application_is_not_ready(serving, kubectl, namespace, eventually, condition):
    await serving()
    kubectl(
        "annotate",
        "rayservice",
        "imagine",
        "-n",
        namespace,
        "testkit.sdservice.dev/application=DEPLOY_FAILED",
    )
    await eventually(lambda: condition("Ready") == ("False", "NoReplicas"))


async def test_suspend_and_resume(serving, apply, service, preloads, eventually, condition):
    await serving()
    apply(service(spec={"suspend": True}))
    await eventually(lambda: condition("Suspended") == ("True", "Suspended"))
    assert condition("Ready") == ("False", "Suspended")
    assert preloads() == []
    apply(service(spec={"suspend": False}))
    await eventually(lambda: condition("Ready") == ("True", "Serving"))


async def test_scale_moves_the_floor(serving, kubectl, namespace, get, eventually):
    await serving(replicas={"min": 1, "max": 4})
    result = kubectl("scale", "sdservice", "imagine", "--replicas=2", "-n", namespace)
    assert result.returncode == 0, result.stderr
    await eventually(lambda: "min_replicas: 2" in get("rayservice")["spec"]["serveConfigV2"])


async def test_each_change_is_told_once_by_an_event(
    serving, operator, kubectl, namespace, preloads, condition, eventually
):
    """And each child was applied once: a comparison that sees differences where there are none would show here."""
    await serving()
    await eventually(lambda: condition("ConfigApplied") == ("True", "ApplicationRunning"))
    operator.stop()
    operator.start()
    kind = "involvedObject.kind=StableDiffusionService"

    def told():
        listed = kubectl("get", "events", "-n", namespace, "-o", "json", "--field-selector", kind)
        return sorted(
            (item["reason"], item["message"].split(":")[0]) for item in json.loads(listed.stdout)["items"]
        )

    await eventually(lambda: ("Serving", "Ready=True") in told())
    (shared,) = preloads()
    assert [message for reason, message in told() if reason == "Applied"] == [
        f"Applied NetworkPolicy imagine-pods, DaemonSet {shared['metadata']['name']}, RayService imagine",
    ]


async def test_rendered_objects_pass_strict_validation(kuberay, kubectl, namespace, root):
    """Against KubeRay's own CRDs where KUBERAY_CRDS names them."""
    for path in sorted((root / "examples").glob("*.yaml")):
        text = CliRunner().invoke(app, ["render", str(path), "-n", namespace]).stdout
        result = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
        assert result.returncode == 0, f"{path.name}: {result.stderr}"
