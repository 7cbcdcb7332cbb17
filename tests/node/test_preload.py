# SPDX-License-Identifier: Apache-2.0
"""Image preload with a real kubelet and containerd that pull from a real registry. Ray in the pods is simulated."""

import pytest

PRELOAD = "app.kubernetes.io/component=preload"
WORKER = "ray.io/node-type=worker"
REQUIRED = {"mode": "Required"}


@pytest.fixture
def worker_image(get):
    """Image that the RayService asks for; None while there is none."""

    def read():
        live = get("rayservice")
        if live is None:
            return None
        (group,) = live["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        return group["template"]["spec"]["containers"][0]["image"]

    return read


@pytest.fixture
def found_there(pods, messages):
    """Whether a worker of an image runs, and its image was on the node when it came."""

    def look(image):
        for each in pods(WORKER):
            told = messages(each)
            if each["spec"]["containers"][0]["image"] == image and "Started" in told:
                return told["Pulled"].startswith(f'Container image "{image}" already present on machine')
        return None

    return look


async def test_the_preload_pod_is_restricted_has_no_token_and_holds_the_image(
    real, on_node, push, tag, apply, pods, preloaded, eventually, condition
):
    digest = push(tag)
    apply(on_node(tag))
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "ImagesPresent"))
    assert preloaded() == {
        "image": f"registry.test/worker:{tag}",
        "digest": digest,
        "nodesReady": 1,
        "nodesMatched": 1,
        "nodesUnknown": 0,
    }
    (pod,) = pods(PRELOAD)
    assert pod["spec"].get("volumes", []) == []
    (container,) = pod["status"]["containerStatuses"]
    inside = container["containerID"].removeprefix("containerd://")
    assert real.node.run_in(inside, "id", "-u") == "1000"
    assert real.node.run_in(inside, "sh", "-c", "test -e /var/run/secrets || echo none") == "none"


async def test_a_worker_finds_the_image_that_was_waited_for(
    on_node, push, tag, apply, found_there, worker_image, eventually, condition
):
    image = f"registry.test/worker:{tag}"
    apply(on_node(tag, imagePreload=REQUIRED))
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "ImagePullFailed"))
    assert condition("Ready") == ("False", "WaitingForImages")
    assert worker_image() is None
    push(tag)
    await eventually(lambda: found_there(image))
    await eventually(lambda: condition("Ready") == ("True", "Serving"))


async def test_an_upgrade_waits_for_the_registry_and_then_goes_on(
    on_node, push, tag, apply, pods, found_there, worker_image, preloaded, eventually, condition, told
):
    push(tag)
    apply(on_node(tag, imagePreload=REQUIRED))
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    (before,) = pods(WORKER)

    new = f"{tag}-new"
    apply(on_node(new, imagePreload=REQUIRED))
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "ImagePullFailed"))
    message = told("ImagesPreloaded")[2]
    assert message.startswith("node real-0, since ")
    assert f"failed to resolve image: registry.test/worker:{new}: not found" in message
    assert condition("ConfigApplied") == ("False", "WaitingForImages")
    assert condition("Ready") == ("True", "Serving")
    assert worker_image() == f"registry.test/worker:{tag}"
    assert [each["metadata"]["uid"] for each in pods(WORKER)] == [before["metadata"]["uid"]]

    digest = push(new)
    await eventually(lambda: found_there(f"registry.test/worker:{new}"))
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "ImagesPresent"))
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    assert preloaded()["digest"] == digest


async def test_an_image_that_is_removed_under_a_running_container_is_lost(
    real, on_node, push, tag, apply, eventually, condition, told
):
    push(tag)
    image = f"registry.test/worker:{tag}"
    apply(on_node(tag, imagePreload=REQUIRED))
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    real.node.containerd.remove_image(image)
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "ImageLost"))
    assert image in told("ImagesPreloaded")[2]


async def test_external_counts_a_node_that_lists_the_image(
    real, on_node, push, tag, apply, pods, preloaded, eventually, condition
):
    push(tag)
    apply(on_node(tag, imagePreload={"mode": "External"}))
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "ImagesPresent"))
    assert preloaded()["nodesReady"] == 1
    assert pods(PRELOAD) == []
