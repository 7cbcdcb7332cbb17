# SPDX-License-Identifier: Apache-2.0
"""One real node for all tests of this tier: `make node`."""

import json
import os
import sys
import uuid
from pathlib import Path

import pytest

from sd_testkit.node import NODE, obstacle
from sd_testkit.node.cluster import real_cluster
from sd_testkit.node.layers import marked_layer

GPUS = 8  # Pods of a test that has ended may keep their resources a little longer.


def pytest_collection_modifyitems(items):
    """Report once why these tests are skipped."""
    asked = os.environ.get("SDSERVICE_NODE") == "1"
    reason = (
        obstacle() if asked else "a real node needs root and more programs; `make node` builds and runs it"
    )
    for item in items:
        if reason and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.skip(reason))


@pytest.fixture(scope="module")
async def real(tmp_path_factory):
    """The cluster with the node. A test file may use a different one."""
    async with real_cluster(tmp_path_factory.mktemp("real"), GPUS) as running:
        yield running
        sys.stdout.write(running.operator.log()[-20000:])


@pytest.fixture(scope="module")
def control_plane(real):
    return real.control_plane


@pytest.fixture(scope="module")
def kubectl(control_plane):
    return lambda *arguments, stdin=None: control_plane.kubectl(*arguments, stdin=stdin, check=False)


@pytest.fixture
def namespace(kubectl, namespace):
    """A namespace that refuses pods that are not restricted."""
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return namespace


@pytest.fixture
def on_node(service):
    """A service with its head and workers on the real node, and an image of the registry."""

    def build(tag, **spec):
        place = {
            "nodeSelector": {"kubernetes.io/hostname": NODE},
            "resources": {"cpu": "50m", "memory": "64Mi"},
        }
        image = {"repository": "registry.test/worker", "tag": tag}
        groups = [{"name": "gpu", **place}]
        return service(spec={"image": image, "head": place, "workerGroups": groups, **spec})

    return build


@pytest.fixture
def pods(kubectl, namespace):
    """Return the pods with a label, except those that are being deleted."""

    def find(selector):
        listed = kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json").stdout
        return [each for each in json.loads(listed)["items"] if "deletionTimestamp" not in each["metadata"]]

    return find


@pytest.fixture
def messages(kubectl, namespace):
    """Return the messages of the Events about a pod, by reason."""

    def find(pod):
        about = f"involvedObject.uid={pod['metadata']['uid']}"
        listed = kubectl("get", "events", "-n", namespace, "--field-selector", about, "-o", "json").stdout
        return {each["reason"]: each["message"] for each in json.loads(listed)["items"]}

    return find


@pytest.fixture
def tag():
    """A tag that no other test has pulled."""
    return uuid.uuid4().hex[:8]


@pytest.fixture
def push(real, tmp_path):
    """Push the worker's image with a tag, and with layers that no other tag has. Return its digest."""

    def send(tag):
        layer = tmp_path / f"{tag}.tar.gz"
        marked_layer(layer, tag)
        real.registry.push(f"worker:{tag}", [layer])
        return real.registry.digest(f"worker:{tag}")

    return send


@pytest.fixture
def preloaded(get):
    """Return status.preload of the runtime image."""
    return lambda: get("sdservice")["status"]["preload"]["images"][0]
