# SPDX-License-Identifier: Apache-2.0
"""The scenario list on a real node with a real KubeRay, real Ray and our images: `make node KUBERAY=... KUBERAY_MANIFESTS=...`.

Beside each scenario the truth meter asks for a picture once a second. Printed are seconds and shares; what KubeRay does
is recorded into the folder that SDSERVICE_RESULTS names (default: .cache/kuberay).
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import pytest
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_testkit.api_server import ApiServer
from sd_testkit.merging import merged
from sd_testkit.node import GivenKubeRay
from sd_testkit.node.installing import OPERATOR, SYSTEM, cluster_with_images, install_chart
from sd_testkit.scenarios import SCENARIOS, User
from sd_testkit.tracer import Tracer
from sd_testkit.truth_report import play, row, seconds_of, table

NAMESPACE = "scenarios"
PATIENCE_SECONDS = 600
READING_SECONDS = 15
# Two clusters of it and KubeRay fit on two cores; a head's autoscaler alone asks for half a one.
SMALL = {
    "head": {"resources": {"cpu": "100m", "memory": "3Gi"}},
    "workerGroups": [{"name": "cpu", "resources": {"cpu": "100m", "memory": "3Gi"}}],
}

pytestmark = pytest.mark.skipif(
    GivenKubeRay.named() is None,
    reason="make node KUBERAY=<binary> KUBERAY_MANIFESTS=<folder> tries a real KubeRay",
)


@pytest.fixture(scope="module")
def results(root):
    folder = Path(os.environ.get("SDSERVICE_RESULTS") or root / ".cache/kuberay")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
async def real(tmp_path_factory):
    """A cluster with the given KubeRay, and our images on its node."""
    async with cluster_with_images(tmp_path_factory.mktemp("kuberay"), GivenKubeRay.named()) as running:
        yield running


@pytest.fixture(scope="module")
async def operator(real, kubectl):
    await install_chart(real.control_plane)
    yield
    for each, namespace in ((OPERATOR, SYSTEM), ("deployment/kuberay-operator", "default")):
        logs = await asyncio.to_thread(kubectl, "logs", "-n", namespace, each)
        sys.stdout.write(logs.stdout[-10000:])


@pytest.fixture(scope="module")
async def user(operator, real, root):
    """One user and one service, which the scenarios pass on."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = 256
    await config.load_kube_config(str(real.control_plane.kubeconfig), client_configuration=configuration)
    base = merged(yaml.safe_load((root / "examples/cpu.yaml").read_text()), {"spec": SMALL})
    real.control_plane.kubectl("create", "namespace", NAMESPACE)
    async with ApiClient(configuration) as api:
        yield User(api, NAMESPACE, base, PATIENCE_SECONDS, READING_SECONDS)


@pytest.fixture(scope="module")
async def trace(user, results):
    tracer = Tracer(ApiServer(user.api), NAMESPACE, results / "trace.jsonl")
    tracer.file.unlink(missing_ok=True)
    task = asyncio.create_task(tracer.run())
    yield tracer
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture(scope="module")
def verdicts(results):
    """Of the scenarios so far; the table of all of them goes into a file."""
    found = []
    yield found
    (results / "truth.md").write_text(table(found) + "\n")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_scenario(user, trace, verdicts, scenario):
    trace.step(scenario.name)
    played = await play(scenario, user)
    verdicts.append((scenario.name, played.verdict))
    sys.stdout.write(f"\n{row(*verdicts[-1])} {played.took:.0f} s\n{seconds_of(played.samples)}\n")
    assert not played.failure, played.failure
