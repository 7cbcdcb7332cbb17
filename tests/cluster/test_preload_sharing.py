# SPDX-License-Identifier: Apache-2.0
"""Preload pods that services of a namespace share, images that stay while they are in use, and helpers that are refused.

The simulated kubelets never pull an image of missing.example (sd_testkit's stages.yaml), and run any other.
"""

import json
from collections import Counter

import pytest

FIRST, SECOND = ({"repository": "example.org/worker", "tag": tag} for tag in "12")
MISSING = {"repository": "missing.example/worker", "tag": "2"}
REQUIRED = {"mode": "Required"}
DAEMON_SET = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "any"},
    "spec": {
        "selector": {"matchLabels": {"app": "any"}},
        "template": {
            "metadata": {"labels": {"app": "any"}},
            "spec": {"containers": [{"name": "any", "image": "example.org/any:1"}]},
        },
    },
}
DEPLOYMENT = {**DAEMON_SET, "kind": "Deployment"}
RAY_SERVICE = {
    "apiVersion": "ray.io/v1",
    "kind": "RayService",
    "metadata": {"name": "imagine-any"},
    "spec": {
        "rayClusterConfig": {
            "headGroupSpec": {"rayStartParams": {}, "template": DAEMON_SET["spec"]["template"]},
        }
    },
}


@pytest.fixture
def preload_pods(kubectl, namespace):
    """Preload pods of the namespace that are not on their way out."""

    def read():
        selector = "app.kubernetes.io/component=preload"
        found = kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json").stdout
        return [each for each in json.loads(found)["items"] if "deletionTimestamp" not in each["metadata"]]

    return read


@pytest.fixture
def images(preloads):
    """Images that preload DaemonSets of a service keep."""

    def read(name="imagine"):
        specs = [each["spec"]["template"]["spec"] for each in preloads(name)]
        return sorted(each["containers"][0]["image"] for each in specs)

    return read


@pytest.fixture
def users(preloads):
    """Names of the services that share the DaemonSets of one."""
    return lambda name="imagine": [
        sorted(owner["name"] for owner in each["metadata"]["ownerReferences"]) for each in preloads(name)
    ]


def is_running(pod):
    return pod.get("status", {}).get("phase") == "Running"


@pytest.fixture
def calm(operator):
    """An operator that compares everything only once in a while: what it does, it has heard of."""
    operator.stop()
    operator.start(SDSERVICE_RESYNC_SECONDS="20", SDSERVICE_FULL_RESYNC_SECONDS="3600")
    yield operator
    operator.stop()
    operator.start()


async def test_a_hundred_services_leave_at_most_two_preload_pods_on_a_node(
    calm, service, kubectl, namespace, preload_pods, users, eventually
):
    """They wait for an image that never comes, so that nothing else runs of them."""
    names = [f"s{number}" for number in range(100)]
    spec = {"imagePreload": REQUIRED, "image": MISSING}
    bodies = [service(metadata={"name": name}, spec=spec) for name in names]
    listed = {"apiVersion": "v1", "kind": "List", "items": bodies}
    assert kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(listed)).returncode == 0
    await eventually(lambda: users("s0") == [sorted(names)])
    await eventually(preload_pods)
    on_nodes = Counter(each["spec"].get("nodeName") for each in preload_pods())
    assert max(on_nodes.values()) <= 2, on_nodes

    before = {each["metadata"]["uid"] for each in preload_pods()}
    kubectl("delete", "sdservice", *names[:60], "-n", namespace, "--wait=false")
    await eventually(lambda: users("s99") == [sorted(names[60:])])
    assert {each["metadata"]["uid"] for each in preload_pods()} == before, "the others lost their pods"
    kubectl("delete", "sdservice", *names[60:], "-n", namespace, "--wait=false")
    await eventually(lambda: users("s99") == [])
    await eventually(lambda: preload_pods() == [])


async def test_an_edit_takes_one_service_out_and_leaves_the_others(
    operator, apply, service, users, images, preloads, eventually
):
    for name in ("imagine", "other"):
        apply(service(metadata={"name": name}, spec={"image": FIRST}))
    await eventually(lambda: users() == users("other") == [["imagine", "other"]])
    (before,) = preloads("other")
    apply(service(spec={"image": FIRST, "imagePreload": {"mode": "Disabled"}}))
    await eventually(lambda: users("other") == [["other"]])
    assert preloads("other")[0]["metadata"]["uid"] == before["metadata"]["uid"]
    apply(service(spec={"image": FIRST}))
    await eventually(lambda: users("other") == [["imagine", "other"]])
    apply(service(metadata={"name": "other"}, spec={"image": FIRST, "suspend": True}))
    await eventually(lambda: users() == [["imagine"]])
    assert images() == ["example.org/worker:1"]


async def test_deleted_by_hand_it_comes_back_for_all_who_share_it(
    operator, apply, service, users, preloads, kubectl, namespace, eventually
):
    for name in ("imagine", "other"):
        apply(service(metadata={"name": name}, spec={"image": FIRST}))
    await eventually(lambda: users() == [["imagine", "other"]])
    (before,) = preloads()
    kubectl("delete", "daemonset", before["metadata"]["name"], "-n", namespace)

    def is_another():
        uids = [each["metadata"]["uid"] for each in preloads()]
        return users() == [["imagine", "other"]] and uids != [before["metadata"]["uid"]]

    await eventually(is_another)


async def test_the_default_goes_to_nodes_with_gpus_and_nowhere_else(
    operator, apply, service, preload_pods, eventually, condition
):
    apply(service(spec={"image": FIRST}))
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "ImagesPresent"))
    nodes = {each["spec"]["nodeName"] for each in preload_pods()}
    assert {"gpu-0", "gpu-1"} <= nodes
    assert "cpu-0" not in nodes


async def test_where_no_node_matches_the_labels_are_named(operator, apply, service, eventually, told):
    apply(service(spec={"image": FIRST, "gpuResourceName": "gpu.intel.com/i915"}))
    await eventually(lambda: told("ImagesPreloaded")[:2] == ("True", "NoMatchingNodes"))
    message = told("ImagesPreloaded")[2]
    assert "intel.feature.node.kubernetes.io/gpu" in message
    assert "SDSERVICE_GPU_NODE_LABELS" in message


async def test_without_gpus_and_selector_nothing_is_preloaded(
    operator, apply, service, get, preloads, eventually, condition
):
    apply(service(spec={"image": FIRST, "gpusPerReplica": 0}))
    await eventually(lambda: get("rayservice") is not None)
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "Disabled"))
    assert preloads() == []


async def test_the_image_that_serves_stays_while_a_change_waits_and_until_its_cluster_is_gone(
    serving, apply, service, get, images, preload_pods, eventually, condition, told, operator
):
    await serving(image=FIRST, imagePreload=REQUIRED)
    held = {each["metadata"]["uid"] for each in preload_pods()}
    apply(service(spec={"image": MISSING, "imagePreload": REQUIRED}))
    await eventually(lambda: condition("ConfigApplied") == ("False", "WaitingForImages"))
    await eventually(lambda: images() == ["example.org/worker:1", "missing.example/worker:2"])
    operator.stop()
    operator.start()
    await eventually(lambda: "which a cluster still runs, is on" in told("ImagesPreloaded")[2])
    assert "Image example.org/worker:1, which a cluster still runs, is on" in told("ImagesPreloaded")[2]
    listed = [each["image"] for each in get("sdservice")["status"]["preload"]["images"]]
    assert listed == ["missing.example/worker:2", "example.org/worker:1"]
    assert held <= {each["metadata"]["uid"] for each in preload_pods()}, "not for a moment without"

    # To an image that comes: the former one goes after the cluster that ran it, and not before.
    apply(service(spec={"image": SECOND, "imagePreload": REQUIRED}))
    await eventually(lambda: ":2" in json.dumps(get("rayservice")["spec"]["rayClusterConfig"]))
    await eventually(lambda: images() == ["example.org/worker:2"])
    await eventually(lambda: condition("Upgrading")[0] == "False")


async def test_a_policy_against_daemon_sets_keeps_no_service_from_serving(
    operator, apply, service, forbid, enforced, get, preloads, eventually, condition, told
):
    lift = forbid("apps", "daemonsets", words="no DaemonSets for tenants")
    enforced(DAEMON_SET)
    apply(service(spec={"image": FIRST}))
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "Refused"))
    assert "no DaemonSets for tenants" in told("ImagesPreloaded")[2]
    assert condition("Accepted") == ("True", "Accepted")
    lift()
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "ImagesPresent"))


async def test_a_quota_without_daemon_sets_holds_back_only_what_requires_them(
    operator, apply, service, kubectl, namespace, enforced, get, eventually, condition, told
):
    kubectl("create", "quota", "none", "--hard=count/daemonsets.apps=0", "-n", namespace)
    enforced(DAEMON_SET)
    apply(service(spec={"image": FIRST}))
    apply(service(metadata={"name": "careful"}, spec={"image": FIRST, "imagePreload": REQUIRED}))
    await eventually(lambda: get("rayservice") is not None)
    await eventually(lambda: condition("Ready", "careful") == ("False", "WaitingForImages"))
    await eventually(lambda: told("ImagesPreloaded", "careful")[:2] == ("False", "Refused"))
    message = told("ImagesPreloaded", "careful")[2]
    assert "exceeded quota: none" in message
    assert "on hold" in message
    assert get("rayservice", "careful") is None
    since = get("sdservice", "careful")["status"]["preload"]["waitingSince"]
    apply(service(metadata={"name": "later"}, spec={"image": FIRST, "imagePreload": REQUIRED}))
    await eventually(lambda: condition("Ready", "later") == ("False", "WaitingForImages"))
    assert get("sdservice", "careful")["status"]["preload"]["waitingSince"] == since, "each has its own time"
    kubectl("delete", "quota", "none", "-n", namespace)
    await eventually(lambda: get("rayservice", "careful") is not None)


async def test_placeholders_that_a_policy_forbids_keep_no_service_from_serving(
    operator, apply, service, forbid, enforced, get, eventually, condition
):
    forbid("apps", "deployments", words="no Deployments for tenants")
    enforced(DEPLOYMENT)
    apply(service(spec={"image": FIRST, "imagePreload": {"warmNodes": 1}}))
    await eventually(lambda: get("rayservice") is not None)
    await eventually(
        lambda: "no Deployments for tenants" in get("sdservice")["status"]["warmNodes"]["message"]
    )
    assert get("sdservice")["status"]["warmNodes"]["summary"] == "0/1"
    assert condition("Accepted") == ("True", "Accepted")


async def test_what_closes_the_pods_comes_before_them(
    operator, apply, service, forbid, enforced, get, kubectl, namespace, eventually, condition
):
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "any"}}
    lift = forbid("networking.k8s.io", "networkpolicies", words="no policies of tenants")
    enforced({**policy, "spec": {"podSelector": {}}})
    apply(service(spec={"image": FIRST}))
    await eventually(lambda: condition("Accepted") == ("False", "Refused"))
    assert get("rayservice") is None
    lift()
    await eventually(lambda: get("rayservice") is not None)


async def test_what_was_written_before_a_refusal_is_told(
    operator, apply, service, forbid, enforced, kubectl, namespace, eventually, condition
):
    forbid("ray.io", "rayservices", "!object.metadata.name.startsWith('imagine')")
    enforced(RAY_SERVICE)
    apply(service(spec={"image": FIRST}))
    await eventually(lambda: condition("Accepted") == ("False", "Refused"))
    kind = "involvedObject.kind=StableDiffusionService"

    def applied():
        listed = kubectl("get", "events", "-n", namespace, "-o", "json", "--field-selector", kind)
        found = json.loads(listed.stdout)["items"]
        return [each["message"] for each in found if each["reason"] == "Applied"]

    await eventually(applied)
    assert applied()[0].startswith("Applied NetworkPolicy imagine-pods, DaemonSet sdservice-preload-")
