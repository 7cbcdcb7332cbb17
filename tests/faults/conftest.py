# SPDX-License-Identifier: Apache-2.0
"""A separate control plane, since these tests stop it.

Each test has its own operator, which serves one namespace.

The stand-in for KubeRay is a separate process, and does not use the proxy.
"""

import asyncio
import itertools
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_testkit.cluster.api_server import ApiServer, suffix
from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.playground import install_crds
from sd_testkit.proving.lane import SPEC, Lane, NotConverged
from sd_testkit.proving.witness import Witness


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory):
    started = ControlPlane(tmp_path_factory.mktemp("faults"))
    try:
        started.start()
        install_crds(started)
        command = [sys.executable, "-m", "sd_testkit", "kuberay", str(started.pod_network)]
        started.processes.start("kuberay", command, {"KUBECONFIG": str(started.kubeconfig)})
        yield started
        started.processes.check("kuberay")
    finally:
        started.processes.stop("kuberay")
        started.stop()


@pytest.fixture(scope="session")
async def server(control_plane):
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        yield ApiServer(api)


@pytest.fixture(scope="session")
async def witness(control_plane):
    async with Witness(control_plane.kubeconfig) as seeing:
        yield seeing


def opener(ended, control_plane, server, witness, folder):
    """A function that opens lanes. `ended` closes them."""
    numbers = itertools.count()

    async def make_namespace():
        name = f"faults-{suffix(8)}"
        await asyncio.to_thread(control_plane.kubectl, "create", "namespace", name)
        gone = ("delete", "namespace", name, "--wait=false")
        ended.push_async_callback(asyncio.to_thread, control_plane.kubectl, *gone, check=False)
        return name

    async def start(namespace=None, *, launcher=None, **environment):
        at = folder / f"lane-{next(numbers)}"
        namespace = namespace or await make_namespace()
        lane = Lane(control_plane, server, witness, at, namespace, launcher=launcher)
        await lane.open(**environment)
        ended.push_async_callback(lane.close)
        return lane

    return start


@pytest.fixture
async def open_lane(control_plane, server, witness, tmp_path):
    """Open a lane: a namespace, a proxy and an operator with additional environment variables."""
    async with AsyncExitStack() as ended:
        yield opener(ended, control_plane, server, witness, tmp_path)


@pytest.fixture(scope="session")
async def standing(control_plane, server, witness, tmp_path_factory):
    """Lanes that outlive a test. `served` has the latest one with its service."""
    async with AsyncExitStack() as ended:
        folder = tmp_path_factory.mktemp("standing")
        yield SimpleNamespace(open_lane=opener(ended, control_plane, server, witness, folder), served=None)


@pytest.fixture
async def served(standing):
    """A lane with a service: the lane, its name, its end state.

    The lane of the last test is reused if it can be repaired.
    """
    if standing.served is not None:
        lane, name, wanted = standing.served
        try:
            await lane.clear(but=name)
            await lane.apply(name, SPEC)
            await lane.reaches(name, wanted, within=60)
        except NotConverged:
            await lane.kill()
            standing.served = None
    if standing.served is None:
        lane = await standing.open_lane()
        standing.served = lane, *await lane.serve()
    standing.served[0].kubelet.codes.clear()
    return standing.served


@pytest.fixture
async def lane(open_lane):
    return await open_lane()


@pytest.fixture
def figure(record_property):
    """Report a figure for a row of docs/faults.md. All figures are printed at the end."""

    def tell(row, text):
        record_property("figure", f"{row}: {text}")

    return tell


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Select the quick tests for `make test`: all of them together take half an hour."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "quick" not in item.keywords:
            item.add_marker("slow")


def pytest_terminal_summary(terminalreporter):
    told = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "figure"
    ]
    if told:
        terminalreporter.section("figures")
        for line in told:
            terminalreporter.line(line)
