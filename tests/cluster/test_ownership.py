# SPDX-License-Identifier: Apache-2.0
"""The operator changes only its own objects, in the namespaces that it serves, with the permissions of those namespaces."""

import json
import uuid

import pytest

from sd_testkit.chart import service_account

BY_WATCH = {"SDSERVICE_RESYNC_SECONDS": "3600", "SDSERVICE_FULL_RESYNC_SECONDS": "3600"}
"""No comparison meanwhile: what an operator does, it has heard of."""


def ray_service_of(someone, service_body):
    """A RayService of another owner, as little as KubeRay's CRD allows, in the form in which KubeRay writes it."""
    container = {"name": "ray", "image": "example.org/ray:1", "resources": {}}
    pod = {"template": {"metadata": {}, "spec": {"containers": [container]}}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": service_body["metadata"]["name"], "labels": {"owner": someone}},
        "spec": {"suspend": True, "rayClusterConfig": {"headGroupSpec": {"rayStartParams": {}, **pod}}},
    }


def secret_of(someone, service_body):
    name = f"{service_body['metadata']['name']}-ray-token"
    metadata = {"name": name, "labels": {"owner": someone}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "stringData": {"auth_token": "theirs"},
    }


CACHED = {
    "preset": None,
    "uri": "hf://owner/name",
    "revision": "0" * 40,
    "cache": {"persistentVolumeClaim": {"claimName": "weights"}},
}
"""A model whose cache is filled by a DaemonSet of the service's own."""


def daemon_set_of(someone, service_body):
    """One that even carries our labels."""
    labels = {"app": someone}
    name = service_body["metadata"]["name"]
    ours = {"sdservice.dev/name": name, "app.kubernetes.io/managed-by": "sd-operator"}
    container = {"name": "c", "image": "example.org/theirs:1"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": f"{name}-weights-gpu", "labels": ours},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@pytest.mark.parametrize("theirs", [ray_service_of, secret_of])
async def test_object_of_someone_else_is_left_alone(
    operator, apply, service, kubectl, namespace, get, eventually, condition, theirs
):
    body = theirs("someone", service())
    kind, name = body["kind"], body["metadata"]["name"]
    apply(body)

    def told():
        live = get(kind, name)
        return {key: live.get(key) for key in ("spec", "data")}, live["metadata"].get("labels")

    before = told()
    apply(service())
    await eventually(lambda: condition("Accepted") == ("False", "NameConflict"))
    assert condition("Ready") == ("False", "NameConflict")
    assert told() == before
    kubectl("delete", kind, name, "-n", namespace, "--wait=false")
    await eventually(lambda: condition("Accepted") == ("True", "Accepted"))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("rayservice", "imagine"),
        ("secret", "imagine-ray-token"),
        ("networkpolicy", "imagine-pods"),
    ],
)
async def test_a_service_that_is_applied_again_waits_for_what_the_former_one_left(
    serving, apply, service, kubectl, namespace, get, eventually, condition, kind, name
):
    """As KubeRay's finalizer keeps a RayService while KubeRay is away."""
    await serving()

    def keep(finalizers):
        patch = json.dumps({"metadata": {"finalizers": finalizers}})
        kubectl("patch", kind, name, "-n", namespace, "--type=merge", "-p", patch)

    former = get(kind, name)["metadata"]
    keep([*former.get("finalizers", []), "example.org/kept"])
    kubectl("delete", "sdservice", "imagine", "-n", namespace, "--wait=true")
    apply(service())
    await eventually(lambda: condition("Accepted") == ("False", "WaitingForDeletion"))
    assert condition("Ready") == ("False", "WaitingForDeletion")
    await eventually(lambda: "deletionTimestamp" in get(kind, name)["metadata"])
    await eventually(lambda: get(kind, name)["metadata"]["finalizers"] == ["example.org/kept"])
    keep(None)
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    assert get(kind, name)["metadata"]["uid"] != former["uid"]
    events = json.loads(kubectl("get", "events", "-n", namespace, "-o", "json").stdout)["items"]
    assert "NameConflict" not in {each["reason"] for each in events}


async def test_helper_of_someone_else_is_left_alone_and_keeps_nothing_else(
    operator, apply, service, kubectl, namespace, get, eventually, condition, told
):
    theirs = daemon_set_of("someone", service())
    apply(theirs)
    before = get("daemonset", "imagine-weights-gpu")["spec"]
    apply(service(spec={"model": CACHED}))
    await eventually(lambda: get("rayservice") is not None)
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "NameConflict"))
    assert told("ImagesPreloaded")[2].startswith(
        "DaemonSet imagine-weights-gpu: DaemonSet imagine-weights-gpu exists"
    )
    assert condition("Accepted") == ("True", "Accepted")
    assert get("daemonset", "imagine-weights-gpu")["spec"] == before
    kubectl("delete", "daemonset", "imagine-weights-gpu", "-n", namespace)
    await eventually(lambda: get("daemonset", "imagine-weights-gpu")["metadata"]["ownerReferences"])


async def test_pruning_takes_what_is_ours_and_unwanted_and_nothing_else(
    operator, apply, service, get, eventually
):
    apply(service(spec={"model": CACHED, "workerGroups": [{"name": "a"}, {"name": "b"}]}))
    await eventually(lambda: get("daemonset", "imagine-weights-b") is not None)
    theirs = daemon_set_of("someone", service())
    theirs["metadata"]["name"] = "imagine-weights-c"
    apply(theirs)
    apply(service(metadata={"name": "other"}, spec={"model": CACHED, "workerGroups": [{"name": "b"}]}))
    await eventually(lambda: get("daemonset", "other-weights-b") is not None)
    apply(service(spec={"model": CACHED, "workerGroups": [{"name": "a"}]}))
    await eventually(lambda: get("daemonset", "imagine-weights-b") is None)
    for name in ("imagine-weights-a", "imagine-weights-c", "other-weights-b"):
        assert get("daemonset", name), name


async def test_policy_is_there_before_pods_is_repaired_and_goes_when_it_is_not_wanted(
    serving, apply, service, kubectl, namespace, get, eventually
):
    await serving()
    made = get("networkpolicy", "imagine-pods")
    pods = json.loads(kubectl("get", "pods", "-n", namespace, "-o", "json").stdout)["items"]
    assert all(
        each["metadata"]["creationTimestamp"] >= made["metadata"]["creationTimestamp"] for each in pods
    )
    opened = json.dumps({"spec": {"ingress": [{}]}})
    kubectl("patch", "networkpolicy", "imagine-pods", "-n", namespace, "--type=merge", "-p", opened)
    await eventually(lambda: get("networkpolicy", "imagine-pods")["spec"] == made["spec"])
    kubectl("delete", "networkpolicy", "imagine-pods", "-n", namespace)
    await eventually(lambda: get("networkpolicy", "imagine-pods"))
    apply(service(spec={"networkPolicy": {"enabled": False}}))
    await eventually(lambda: get("networkpolicy", "imagine-pods") is None)


@pytest.fixture
def namespaces(kubectl):
    names = [f"scope-{uuid.uuid4().hex[:6]}" for _ in range(3)]
    for name in names:
        kubectl("create", "namespace", name)
    yield names
    for name in names:
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def scoped(operator):
    """The operator started anew with a scope; the one that serves all comes back afterwards."""
    operator.stop()
    yield operator
    operator.stop()
    operator.start()


@pytest.fixture
def own(control_plane, kubectl, namespaces, tmp_path):
    """A ServiceAccount that may do what the chart grants for its own namespace, and nothing elsewhere, nor in the cluster."""
    alone = {"watchOwnNamespace": True, "rbac": {"clusterReads": False}, "ray": {"throughApiServer": True}}
    return service_account(control_plane, tmp_path, namespace=namespaces[0], **alone)


@pytest.fixture
def served(kubectl):
    """Whether a namespace has a Ready service."""

    def ask(namespace):
        told = kubectl("get", "sdservice", "imagine", "-n", namespace, "-o", "json").stdout
        conditions = json.loads(told).get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    return ask


async def create_everywhere(kubectl, namespaces, service):
    for name in namespaces:
        body = json.dumps(service())
        assert kubectl("apply", "-n", name, "-f", "-", stdin=body).returncode == 0


async def test_listed_namespaces_are_served_and_no_other(
    scoped, control_plane, kubectl, namespaces, service, served, eventually, tmp_path
):
    await create_everywhere(kubectl, namespaces, service)
    listed = {"watchNamespaces": namespaces[:2], "ray": {"throughApiServer": True}}
    account = service_account(control_plane, tmp_path, namespace=namespaces[2], **listed)
    scoped.start(
        SDSERVICE_WATCH_NAMESPACES=",".join(namespaces[:2]),
        SDSERVICE_NAMESPACE=account.namespace,
        KUBECONFIG=str(account.kubeconfig),
        **BY_WATCH,
    )
    await eventually(lambda: served(namespaces[0]) and served(namespaces[1]))
    assert kubectl("get", "rayservice,secret", "-n", namespaces[2], "-o", "name").stdout == ""


async def test_own_namespace_is_served_with_the_permissions_of_that_namespace(
    scoped, kubectl, namespaces, service, served, own, eventually
):
    await create_everywhere(kubectl, namespaces, service)
    scoped.start(
        SDSERVICE_WATCH_OWN_NAMESPACE="true",
        SDSERVICE_NAMESPACE=own.namespace,
        SDSERVICE_CLUSTER_READS="false",
        KUBECONFIG=str(own.kubeconfig),
        **BY_WATCH,
    )
    await eventually(lambda: served(own.namespace))
    changed = service(spec={"image": {"tag": "other"}})
    assert kubectl("apply", "-n", own.namespace, "-f", "-", stdin=json.dumps(changed)).returncode == 0

    def upgraded():
        listed = json.loads(kubectl("get", "rayservice", "imagine", "-n", own.namespace, "-o", "json").stdout)
        group = listed["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
        image = group["template"]["spec"]["containers"][0]["image"]
        return image.endswith(":other") and served(own.namespace)

    await eventually(upgraded)
    for name in namespaces[1:]:
        assert kubectl("get", "rayservice,secret", "-n", name, "-o", "name").stdout == ""
