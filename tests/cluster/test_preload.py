# SPDX-License-Identifier: Apache-2.0
"""Images on nodes: real DaemonSets, a real scheduler, and the test's own nodes, whose kubelet the test simulates.

The simulated kubelets never pull an image of missing.example (sd_testkit's stages.yaml).
"""

import json
import uuid

import pytest

from sd_testkit.chart import rendered
from sd_testkit.cluster.control_plane import simulated_node

NEW = {"repository": "missing.example/worker", "tag": "2"}
DIGEST = "sha256:" + "ab" * 32
LONG_AGO = "2026-01-01T00:00:00Z"
REQUIRED = {"mode": "Required"}


@pytest.fixture
def warm_class(kubectl):
    """The PriorityClass that the chart makes."""
    (made,) = (body for body in rendered() if body["kind"] == "PriorityClass")
    kubectl("apply", "-f", "-", stdin=json.dumps(made))


@pytest.fixture
def own_node(kubectl, control_plane):
    """A simulated node with two GPUs that nobody else uses; its name is its hostname label."""
    name = f"own-{uuid.uuid4().hex[:6]}"
    amounts = {"cpu": "64", "memory": "256Gi", "pods": "100", "nvidia.com/gpu": "2"}
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    body = simulated_node(name, amounts, [taint])
    made = kubectl("create", "-f", "-", stdin=json.dumps(body))
    assert made.returncode == 0, made.stderr
    yield name
    kubectl("delete", "node", name, "--wait=false")


@pytest.fixture
def group(own_node):
    """The worker group of that node."""
    return {"name": "gpu", "nodeSelector": {"kubernetes.io/hostname": own_node}, "resources": {"cpu": "1", "memory": "1Gi"}}  # fmt: skip


@pytest.fixture
def pod_of(kubectl, namespace):
    """The pod of a component that is not on its way out, once it is bound; with this image."""

    def find(component, image=""):
        selector = f"app.kubernetes.io/component={component}"
        found = json.loads(kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json").stdout)[
            "items"
        ]
        return next(
            (
                each
                for each in found
                if "deletionTimestamp" not in each["metadata"]
                and each["spec"].get("nodeName")
                and each["spec"]["containers"][0]["image"].startswith(image)
            ),
            None,
        )

    return find  # fmt: skip


@pytest.fixture
def kubelet(kubectl, namespace, pod_of, own_node):
    """What the kubelet of the own node says of the preload pod's container, and of its images."""

    class Kubelet:
        def says(self, image, state, phase="Pending"):
            pod = pod_of("preload", image)
            container = {
                "name": "preload",
                "image": "x",
                "imageID": f"x@{DIGEST}",
                "ready": True,
                "restartCount": 0,
            }
            running = "True" if "running" in state else "False"
            status = {
                "phase": phase,
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": LONG_AGO},
                    {"type": "Ready", "status": running},
                ],
                "containerStatuses": [{**container, "state": state}],
            }
            self._patch("pod", pod["metadata"]["name"], status, "-n", namespace)

        def lists(self, *images):
            self._patch("node", own_node, {"images": [{"names": [each], "sizeBytes": 9} for each in images]})

        def _patch(self, kind, name, status, *more):
            patch = json.dumps({"status": status})
            done = kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", patch, *more)
            assert done.returncode == 0, done.stderr

    return Kubelet()  # fmt: skip


@pytest.fixture
def worker_image(get):
    """Image and steps that the RayService asks for; None while there is none."""

    def read():
        live = get("rayservice")
        if live is None:
            return None
        template = live["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]
        return template["spec"]["containers"][0]["image"], "max_steps: 33" in live["spec"]["serveConfigV2"]

    return read


@pytest.fixture
async def held(serving, apply, service, group, pod_of, worker_image, eventually, condition):
    """A service that serves, and a change of image and limits that waits."""
    spec = {"imagePreload": REQUIRED, "workerGroups": [group]}
    await serving(**spec)
    before = worker_image()
    apply(service(spec={**spec, "image": NEW, "limits": {"maxSteps": 33}}))
    await eventually(lambda: condition("ConfigApplied") == ("False", "WaitingForImages"))
    await eventually(lambda: pod_of("preload", "missing.example/"))
    assert worker_image() == before
    return before


async def test_a_new_image_is_on_the_nodes_before_the_ray_service_changes(
    held, operator, get, kubelet, own_node, worker_image, eventually, condition, told
):
    # The node that blocks is named, once the nodes of the new image are counted.
    await eventually(lambda: f"0/1 matching nodes; node {own_node} " in told("ImagesPreloaded")[2])
    assert condition("ImagesPreloaded") == ("False", "Pulling")
    assert condition("Ready") == ("True", "Serving")
    generation = get("rayservice")["metadata"]["generation"]

    words = "manifest unknown"
    kubelet.says(NEW["repository"], {"waiting": {"reason": "ErrImagePull", "message": words}})
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "ImagePullFailed"))
    message = told("ImagesPreloaded")[2]
    image = "image missing.example/worker:2"
    assert message.startswith(
        f"node {own_node}, since {LONG_AGO}: {image}: {words}. The change stays on hold"
    )

    operator.stop()
    operator.start()
    kubelet.says(NEW["repository"], {"waiting": {"reason": "ContainerCreating"}})
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "Pulling"))
    assert get("rayservice")["metadata"]["generation"] == generation, "held across the restart"

    kubelet.says(NEW["repository"], {"running": {"startedAt": LONG_AGO}}, phase="Running")
    await eventually(lambda: worker_image() == ("missing.example/worker:2", True))
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "ImagesPresent"))
    # The former one is there for as long as a cluster runs it.
    image, *_ = get("sdservice")["status"]["preload"]["images"]
    assert image == {
        "image": "missing.example/worker:2",
        "digest": DIGEST,
        "nodesReady": 1,
        "nodesMatched": 1,
        "nodesUnknown": 0,
    }


async def test_a_change_that_is_taken_back_leaves_no_trace(
    held, apply, service, group, get, worker_image, eventually, condition
):
    generation = get("rayservice")["metadata"]["generation"]
    apply(service(spec={"imagePreload": REQUIRED, "workerGroups": [group]}))
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "ImagesPresent"))
    await eventually(lambda: condition("ConfigApplied") == ("True", "ApplicationRunning"))
    assert (worker_image(), get("rayservice")["metadata"]["generation"]) == (held, generation)


async def test_at_the_deadline_it_is_held_on_until_it_may_go(
    held, apply, service, group, kubectl, namespace, worker_image, eventually, condition
):
    late = {**REQUIRED, "timeoutSeconds": 10}
    spec = {"workerGroups": [group], "image": NEW, "limits": {"maxSteps": 33}}
    apply(service(spec={**spec, "imagePreload": late}))
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "DeadlineExceeded"))
    assert worker_image() == held
    assert condition("Ready") == ("True", "Serving")
    events = kubectl("get", "events.events.k8s.io", "-n", namespace, "-o", "json").stdout
    assert "DeadlineExceeded" in {each["reason"] for each in json.loads(events)["items"]}
    apply(service(spec={**spec, "imagePreload": {"mode": "Opportunistic"}}))
    await eventually(lambda: worker_image() == ("missing.example/worker:2", True))


async def test_without_matching_nodes_a_first_creation_waits_for_nothing(
    operator, apply, service, get, eventually, condition
):
    group = {"name": "gpu", "nodeSelector": {"pool": "nowhere"}}
    apply(service(spec={"imagePreload": REQUIRED, "image": NEW, "workerGroups": [group]}))
    await eventually(lambda: get("rayservice") is not None)
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "NoMatchingNodes"))


async def test_with_matching_nodes_it_waits(
    operator, apply, service, group, get, kubelet, pod_of, eventually, condition
):
    apply(service(spec={"imagePreload": REQUIRED, "image": NEW, "workerGroups": [group]}))
    await eventually(lambda: condition("Ready") == ("False", "WaitingForImages"))
    await eventually(lambda: pod_of("preload", "missing.example/"))
    assert get("rayservice") is None
    kubelet.says(NEW["repository"], {"running": {"startedAt": LONG_AGO}}, phase="Running")
    await eventually(lambda: get("rayservice") is not None)


async def test_opportunistic_goes_on_and_reports(
    serving, apply, service, group, worker_image, eventually, condition
):
    await serving(workerGroups=[group])
    apply(service(spec={"workerGroups": [group], "image": NEW}))
    await eventually(lambda: worker_image() == ("missing.example/worker:2", False))
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "Pulling"))


async def test_a_lost_image_is_told(serving, group, kubelet, own_node, get, eventually, condition, told):
    await serving(workerGroups=[group])
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "ImagesPresent"))
    kubelet.says("", {"running": {"startedAt": LONG_AGO}}, phase="Running")
    kubelet.lists("example.org/other:1")
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "ImageLost"))
    assert told("ImagesPreloaded")[2].startswith(f"node {own_node}")
    assert get("sdservice")["status"]["preload"]["summary"] == "0/1"


async def test_external_images_are_verified_on_the_nodes(
    operator, apply, service, group, preloads, kubelet, own_node, eventually, condition, told
):
    image = {"repository": "example.org/worker", "tag": "2"}
    apply(service(spec={"imagePreload": {"mode": "External"}, "image": image, "workerGroups": [group]}))
    await eventually(lambda: condition("ImagesPreloaded") == ("Unknown", "ImagesUnseen"))
    assert preloads() == []
    kubelet.lists("example.org/other:1")
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "ImageNotPreloaded"))
    assert f"node {own_node}" in told("ImagesPreloaded")[2]
    kubelet.lists("example.org/worker:2")
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "ImagesPresent"))


async def test_pods_are_admitted_where_pod_security_is_restricted(
    operator, warm_class, apply, service, group, kubectl, namespace, pod_of, eventually
):
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    preload = {"images": ["example.org/more:1"], "warmNodes": 1}
    apply(service(spec={"imagePreload": preload, "workerGroups": [group]}))
    await eventually(lambda: pod_of("preload") and pod_of("warm"))
    assert [each["name"] for each in pod_of("preload")["spec"]["containers"]] == ["preload", "image-0"]


async def test_preload_pods_that_may_not_be_made_are_told(
    operator, apply, service, group, kubectl, namespace, preloads, eventually, condition, told
):
    away = {"name": "gpu", "nodeSelector": {"pool": "nowhere"}}
    kubectl("create", "quota", "small", "--hard=pods=0", "-n", namespace)
    apply(service(spec={"workerGroups": [away]}))
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "NoMatchingNodes"))
    apply(service(spec={"workerGroups": [group]}))
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "QuotaExceeded"))
    # That of the first spec is there for as long as its cluster is.
    wanted = group["nodeSelector"]
    (shared,) = (each for each in preloads() if each["spec"]["template"]["spec"]["nodeSelector"] == wanted)
    words = f"preload pods of {shared['metadata']['name']}: exceeded quota: small"
    assert told("ImagesPreloaded")[2].startswith(words)


async def test_a_worker_evicts_a_placeholder(
    serving, warm_class, apply, service, group, get, pod_of, eventually
):
    preload = {"mode": "Disabled", "warmNodes": 1}

    def counts():
        status = get("sdservice")["status"]
        return status["warmNodes"]["summary"], status["workers"][0]["desired"], status["workers"][0]["ready"]

    await serving(imagePreload=preload, workerGroups=[group], replicas={"min": 1, "max": 1})
    await eventually(lambda: counts() == ("1/1", 1, 1))
    apply(service(spec={"imagePreload": preload, "workerGroups": [group], "replicas": {"min": 2, "max": 2}}))
    await eventually(lambda: counts() == ("0/1", 2, 2))
    assert "Insufficient nvidia.com/gpu" in get("sdservice")["status"]["warmNodes"]["message"]
    assert pod_of("warm") is None


async def test_placeholders_that_may_not_be_made_are_told(
    operator, apply, service, group, kubectl, get, eventually
):
    kubectl("delete", "priorityclass", "sdservice-warm", "--ignore-not-found")
    apply(service(spec={"imagePreload": {"warmNodes": 1}, "workerGroups": [group]}))
    words = "no PriorityClass with name sdservice-warm was found"
    await eventually(lambda: words in get("sdservice")["status"]["warmNodes"]["message"])
