# SPDX-License-Identifier: Apache-2.0
"""The project's images and chart on a real node, from an empty cluster to a picture: the steps of a platform team and a user.

The operator's pod with its permissions, every pod of the service with its Ray, kube-proxy and DNS are real. A stand-in
creates the service's pods as KubeRay does (`sd_testkit.kuberay.ray_pods`).
"""

import asyncio
import hashlib
import io
import json
import socket
import sys
import urllib.error
import urllib.request

import pytest
import yaml
from PIL import Image as Picture

from sd_testkit.generators.merging import merged
from sd_testkit.images import obstacle as images_obstacle
from sd_testkit.node.installing import OPERATOR, SYSTEM, cluster_with_images, install_chart

NAME = "shapes-cpu"
PATH = "/imagine?prompt=a+red+circle+on+a+white+background&seed=7&steps=15"
# The node has few cores: these are what its scheduler counts.
SMALL = {
    "head": {"resources": {"cpu": "250m", "memory": "3Gi"}},
    "workerGroups": [{"name": "cpu", "resources": {"cpu": "500m", "memory": "4Gi"}}],
    "replicas": {"min": 1, "max": 1},
}
KINDS = "sdservice,rayservice,raycluster,pods,services,secrets,daemonsets,roles,rolebindings,networkpolicies"
RED = (255, 0, 0)

pytestmark = pytest.mark.skipif(bool(images_obstacle()), reason=images_obstacle() or "-")


@pytest.fixture(scope="module")
async def real(tmp_path_factory):
    """A cluster without anything of ours, and our images on its node."""
    async with cluster_with_images(tmp_path_factory.mktemp("installing")) as running:
        yield running


@pytest.fixture(scope="module")
async def operator(real, kubectl):
    """The chart, installed into a namespace that refuses pods that are not restricted."""
    await install_chart(real.control_plane)
    yield lambda: json.loads(kubectl("get", "pods", "-n", SYSTEM, "-o", "json").stdout)["items"]
    logs = ("logs", "-n", SYSTEM, OPERATOR)
    sys.stdout.write((await asyncio.to_thread(kubectl, *logs)).stdout[-20000:])


@pytest.fixture
def example(root):
    """The CPU example, for a small node."""
    return merged(yaml.safe_load((root / "examples/cpu.yaml").read_text()), {"spec": SMALL})


@pytest.fixture
def address(kubectl, namespace):
    """The address of the service's Service, which only kube-proxy knows."""
    where = ("get", "service", f"{NAME}-serve-svc", "-n", namespace, "-o", "jsonpath={.spec.clusterIP}")
    return lambda: kubectl(*where).stdout


@pytest.fixture
def connects(address):
    """Whether kube-proxy has a way to a pod; its rules come up to a second after an EndpointSlice is ready."""

    def attempt():
        try:
            socket.create_connection((address(), 8000), timeout=20).close()
        except ConnectionRefusedError:
            return False
        return True

    return attempt


@pytest.fixture
def fetch(address):
    """GET a path of the service at the address of its Service."""

    def send(path):
        with urllib.request.urlopen(f"http://{address()}:8000{path}", timeout=120) as answer:
            return answer.read()

    return send


@pytest.fixture
def status_without_token(kubectl, namespace):
    """What the dashboard of the only head says to somebody without a token."""

    def ask():
        where = ("get", "pods", "-n", namespace, "-l", "ray.io/node-type=head")
        address = kubectl(*where, "-o", "jsonpath={.items[0].status.podIP}").stdout
        try:
            with urllib.request.urlopen(
                f"http://{address}:8265/api/serve/applications/", timeout=20
            ) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    return ask


@pytest.fixture
def client_pod(kubectl, namespace):
    """Run a shell command in a restricted pod beside the service: how it stands, and what it said."""

    def begin(command):
        security = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        container = {
            "name": "client",
            "image": "registry.test/worker:dev",
            "command": ["bash", "-c", command],
            "securityContext": security,
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client"},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "containers": [container],
            },
        }
        made = kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(pod))
        assert made.returncode == 0, made.stderr

        def phase():
            return kubectl("get", "pod", "client", "-n", namespace, "-o", "jsonpath={.status.phase}").stdout

        def output():
            return kubectl("logs", "-n", namespace, "client").stdout

        return phase, output

    return begin


async def test_from_helm_install_to_a_picture_and_back_to_nothing(
    operator,
    example,
    apply,
    kubectl,
    namespace,
    connects,
    fetch,
    status_without_token,
    client_pod,
    eventually,
    condition,
    tmp_path,
):
    before = kubectl("get", KINDS, "-n", namespace, "-o", "name").stdout
    apply(example)
    await eventually(lambda: condition("Ready", NAME) == ("True", "Serving"), within=900)
    told = kubectl("get", "sdservice", "-n", namespace).stdout
    sys.stdout.write(told)
    assert told.splitlines()[1].split()[:4] == [NAME, "True", "Serving", "bundled://shapes"]

    await eventually(connects, within=60)
    picture = await asyncio.to_thread(fetch, PATH)
    (tmp_path / "picture.png").write_bytes(picture)
    sys.stdout.write(f"{tmp_path}/picture.png\n")
    drawn = Picture.open(io.BytesIO(picture)).convert("RGB")
    middle = drawn.getpixel((drawn.width // 2, drawn.height // 2))
    corner = drawn.getpixel((1, 1))
    assert distance(middle, RED) < distance(middle, (255, 255, 255)), middle
    assert min(corner) > 200, corner

    url = f"http://{NAME}-serve-svc.{namespace}.svc:8000{PATH}"
    phase, output = client_pod(f"wget -q -O- '{url}' | sha256sum")
    await eventually(lambda: phase() == "Succeeded")
    assert (await asyncio.to_thread(output)).split()[0] == hashlib.sha256(picture).hexdigest()
    kubectl("delete", "pod", "client", "-n", namespace, "--grace-period=0", "--force")

    assert await asyncio.to_thread(status_without_token) == 401
    (pod,) = operator()
    assert [each["restartCount"] for each in pod["status"]["containerStatuses"]] == [0]

    kubectl("delete", "sdservice", NAME, "-n", namespace)
    left = ("get", KINDS, "-n", namespace, "-o", "name")
    await eventually(lambda: kubectl(*left).stdout == before, within=400)


def distance(one, other):
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
