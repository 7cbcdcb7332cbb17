# SPDX-License-Identifier: Apache-2.0
"""An image of a registry with a password. A real kubelet and containerd pull it."""

import base64

import pytest

from sd_testkit.node.private import PRIVATE_HOST, USER

PRELOAD = "app.kubernetes.io/component=preload"
SECRET = "registry-key"
ASKED = "authorization failed: no basic auth credentials"
REFUSED = "401 Unauthorized"


@pytest.fixture
def password_is(kubectl, namespace):
    """Store a password for the registry, as its users do."""

    def store(password):
        login = [
            f"--docker-server={PRIVATE_HOST}",
            f"--docker-username={USER}",
            f"--docker-password={password}",
        ]
        kubectl("delete", "secret", SECRET, "-n", namespace, "--ignore-not-found")
        made = kubectl("create", "secret", "docker-registry", SECRET, "-n", namespace, *login)
        assert made.returncode == 0, made.stderr

    return store


@pytest.fixture
def private(on_node):
    """A service whose image is in that registry, and waited for."""

    def build(tag, **image):
        image = {"repository": f"{PRIVATE_HOST}/worker", "tag": tag, **image}
        return on_node(tag, image=image, imagePreload={"mode": "Required"})

    return build


@pytest.fixture
def told_of_services(real, kubectl, namespace):
    """All that the operator, the API server and the kubelet tell about a namespace's services."""

    def read():
        kinds = "sdservice,rayservice,daemonset,pods,events"
        return real.operator.log() + kubectl("get", kinds, "-n", namespace, "-o", "json").stdout

    return read


async def test_preload_and_ray_pods_pull_with_the_secret_of_the_service(
    real, private, push, tag, apply, password_is, pods, preloaded, eventually, condition
):
    digest = push(tag)
    password_is(real.registry.private.password)
    apply(private(tag, pullSecrets=[{"name": SECRET}]))
    await eventually(lambda: condition("ImagesPreloaded") == ("True", "ImagesPresent"))
    assert preloaded() == {
        "image": f"{PRIVATE_HOST}/worker:{tag}",
        "digest": digest,
        "nodesReady": 1,
        "nodesMatched": 1,
        "nodesUnknown": 0,
    }
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    carried = [each["spec"]["imagePullSecrets"] for each in (*pods(PRELOAD), *pods("ray.io/cluster"))]
    assert carried == [[{"name": SECRET}]] * 3


async def test_without_the_secret_the_status_has_the_registrys_words(
    private, push, tag, apply, preloaded, eventually, condition, told
):
    push(tag)
    apply(private(tag))
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "ImagePullFailed"))
    assert ASKED in told("ImagesPreloaded")[2]
    assert ASKED in preloaded()["message"]
    assert condition("Ready") == ("False", "WaitingForImages")


async def test_a_wrong_password_is_told_nowhere_and_the_right_one_is_taken_without_a_new_spec(
    real, private, push, tag, apply, password_is, preloaded, told_of_services, eventually, condition
):
    push(tag)
    wrong = "not-the-password-of-anyone"
    password_is(wrong)
    apply(private(tag, pullSecrets=[{"name": SECRET}]))
    await eventually(lambda: condition("ImagesPreloaded") == ("False", "ImagePullFailed"))
    # A kubelet that may not read the Secret yet, since the pod is new, pulls without it at first.
    await eventually(lambda: REFUSED in preloaded()["message"])
    everything = told_of_services()
    login = base64.b64encode(f"{USER}:{wrong}".encode()).decode()
    assert REFUSED in everything
    assert wrong not in everything
    assert login not in everything

    password_is(real.registry.private.password)
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    assert real.registry.private.password not in told_of_services()
