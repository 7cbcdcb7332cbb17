# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from sd_operator.cluster import NODE, POD
from sd_operator.device_reader import KEPT_SECONDS, DeviceReader, Devices
from sd_operator.errors import ClusterUnavailable, Refused
from sd_operator.node_reader import NodeReader

NODES = [{"metadata": {"name": "a"}}]


def pod(name, limits, *, on="a", phase="Running", kind="containers"):
    containers = {"containers": [{"name": "c"}], kind: [{"name": "c", "resources": {"limits": limits}}]}
    return {"metadata": {"name": name}, "spec": {**containers, "nodeName": on}, "status": {"phase": phase}}


HOLDS = pod("gpu", {"nvidia.com/gpu": "1", "cpu": "1"})


class Lists:
    """An API server that counts what is listed, and may answer with an error."""

    def __init__(self):
        self.asked, self.error, self.pods = [], None, [HOLDS]

    async def list(self, kind, namespace):
        assert namespace is None
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        self.asked.append(kind)
        return {NODE: NODES, POD: self.pods}[kind]


@pytest.fixture
def lists():
    return Lists()


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def reader(lists, now):
    return DeviceReader(lists, NodeReader(lists, lambda: now[0]), lambda: now[0])


async def test_services_that_upgrade_at_once_share_one_read(reader, lists):
    found = await asyncio.gather(*(reader.read() for _ in range(5)))
    assert found == [Devices(NODES, [HOLDS])] * 5
    assert lists.asked == [NODE, POD]


async def test_it_is_read_anew_after_ten_seconds(reader, lists, now):
    await reader.read()
    lists.pods = []
    now[0] += KEPT_SECONDS - 0.1
    assert (await reader.read()).pods == [HOLDS]
    now[0] += 0.1
    assert (await reader.read()).pods == []


@pytest.mark.parametrize(
    "idle",
    [
        pod("cpu", {"cpu": "1"}),
        pod("none", None),
        pod("done", {"nvidia.com/gpu": "1"}, phase="Succeeded"),
        pod("waits", {"nvidia.com/gpu": "1"}, on=None),
    ],
    ids=lambda each: each["metadata"]["name"],
)
async def test_only_pods_that_hold_a_device_are_kept(reader, lists, idle):
    starts = pod("init", {"amd.com/gpu": "1"}, kind="initContainers")
    lists.pods = [idle, HOLDS, starts]
    assert (await reader.read()).pods == [HOLDS, starts]


async def test_what_may_not_be_read_is_asked_for_once_in_a_while(reader, lists, now):
    lists.error = Refused("may not")
    assert await reader.read() is None
    lists.error = None
    assert await reader.read() is None
    now[0] += KEPT_SECONDS
    assert await reader.read() is not None


async def test_a_failed_read_is_not_kept(reader, lists):
    lists.error = ClusterUnavailable("busy")
    with pytest.raises(ClusterUnavailable):
        await reader.read()
    lists.error = None
    assert await reader.read() == Devices(NODES, [HOLDS])
