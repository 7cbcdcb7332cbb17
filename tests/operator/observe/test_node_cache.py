# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from sd_operator.errors import ClusterUnavailable, Refused
from sd_operator.kube import NODE
from sd_operator.naming import Key
from sd_operator.observe.node_cache import NodeReader
from sd_operator.observe.node_dependency import of_spec

A, B, C = Key("team", "a"), Key("team", "b"), Key("team", "c")
IMAGE, OTHER = "example.org/worker:1", "example.org/worker:2"


def node(name, *images, pool="l4", gpus=1, ready="True", heartbeat="1", cordoned=False):
    return {
        "metadata": {"name": name, "labels": {"pool": pool}, "resourceVersion": heartbeat},
        "spec": {"unschedulable": cordoned},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}],
            "images": [{"names": [each]} for each in (*images, "example.org/pause:1")],
        },
    }


class Nodes:
    """A cluster of nodes, one on each page, that counts how often it is asked."""

    def __init__(self, *nodes):
        self.nodes, self.asked, self.error = nodes, 0, None

    async def pages(self, kind, namespace):
        assert (kind, namespace) == (NODE, None)
        self.asked += 1
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        for each in self.nodes:
            yield [each]


async def test_one_list_serves_all_for_ten_seconds():
    cluster, now = Nodes(node("a"), node("b")), [100.0]
    reader = NodeReader(cluster, lambda: now[0])
    found = await asyncio.gather(*(reader.read() for _ in range(8)))
    assert [set(each) for each in found] == [{"a", "b"}] * 8
    assert cluster.asked == 1
    now[0] += 10
    await reader.read()
    assert cluster.asked == 2
    await reader.read(fresh=True)
    assert cluster.asked == 3, "a decision wants them as they are now"


async def test_those_who_want_them_as_they_are_now_share_the_next_list():
    gate = asyncio.Event()

    class Slow(Nodes):
        async def pages(self, kind, namespace):
            async for page in super().pages(kind, namespace):
                await gate.wait()
                yield page

    cluster = Slow(node("a"))
    reader = NodeReader(cluster, lambda: 0.0)
    running = [asyncio.create_task(reader.read())]
    await asyncio.sleep(0.01)
    running += [asyncio.create_task(reader.read(fresh=True)) for _ in range(5)]
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.gather(*running)
    assert cluster.asked == 2, "the one that was under way began too early"


async def test_a_cluster_that_takes_long_to_list_is_listed_less_often():
    now = [0.0]

    class Slow(Nodes):
        async def pages(self, kind, namespace):
            async for page in super().pages(kind, namespace):
                now[0] += 1.5
                yield page

    cluster = Slow(node("a"), node("b"))
    reader = NodeReader(cluster, lambda: now[0])
    await reader.read()
    now[0] = 59.0
    await reader.read()
    assert cluster.asked == 1
    now[0] = 60.0
    await reader.read()
    assert cluster.asked == 2


async def test_nodes_that_may_not_be_read_are_not_asked_for_at_each_pass():
    cluster = Nodes()
    cluster.error = Refused("nodes is forbidden")
    reader = NodeReader(cluster, lambda: 0.0)
    assert [await reader.read(), await reader.read()] == [None, None]
    assert cluster.asked == 1


@pytest.fixture
def changed(resource):
    """The services that a change of the nodes concerns: `a` and `b` want IMAGE on nodes of pool l4, `c` OTHER on pool t4."""

    def wants(pool, image):
        group = {"name": "gpu", "nodeSelector": {"pool": pool}}
        return of_spec(resource(workerGroups=[group], imagePreload={"mode": "External"}).spec, [image])

    async def look(before, *after):
        cluster, now, found = Nodes(*before), [0.0], set()
        reader = NodeReader(cluster, lambda: now[0])
        for key, dependency in {A: wants("l4", IMAGE), B: wants("l4", IMAGE), C: wants("t4", OTHER)}.items():
            reader.depends(key, dependency)
        running = asyncio.create_task(reader.run(found.add, 3600))
        await asyncio.sleep(0)
        await reader.read()
        found.clear()
        for nodes in after:
            cluster.nodes, now[0] = nodes, now[0] + 10
            await reader.read()
        running.cancel()
        return found

    return look


@pytest.mark.parametrize(
    ("after", "concerned"),
    [
        ([node("x", heartbeat="2"), node("y", OTHER, pool="t4")], set()),
        ([node("x", "example.org/unknown:1"), node("y", OTHER, pool="t4")], set()),
        ([node("x", OTHER), node("y", OTHER, pool="t4")], set()),
        ([node("x", IMAGE), node("y", OTHER, pool="t4")], {A, B}),
        ([node("x"), node("y", pool="t4")], {C}),
        ([node("x", cordoned=True), node("y", OTHER, pool="t4")], {A, B}),
        ([node("x", ready="False"), node("y", OTHER, pool="t4")], {A, B}),
        ([node("x", gpus=0), node("y", OTHER, pool="t4")], {A, B}),
        ([node("x", gpus=8), node("y", OTHER, pool="t4")], set()),
        ([node("x", pool="t4"), node("y", OTHER, pool="t4")], {A, B, C}),
        ([node("y", OTHER, pool="t4")], {A, B}),
        ([node("x"), node("y", OTHER, pool="t4"), node("z", pool="cpu")], set()),
        ([node("x"), node("y", OTHER, pool="t4"), node("z", pool="l4")], {A, B}),
    ],
    ids=[
        "heartbeat",
        "image of nobody",
        "image of a service of other nodes",
        "image comes",
        "image goes",
        "cordoned",
        "not ready",
        "without GPUs",
        "more GPUs",
        "of another pool",
        "node goes",
        "node of nobody comes",
        "node comes",
    ],
)
async def test_a_change_of_nodes_concerns_whoever_depends_on_it(changed, after, concerned):
    before = [node("x"), node("y", OTHER, pool="t4")]
    assert await changed(before, after) == concerned
    assert await changed(before, before) == set()


async def test_a_service_that_is_gone_is_not_reported():
    cluster, found = Nodes(node("x")), []
    reader = NodeReader(cluster, lambda: 0.0)
    reader.depends(A, None)
    running = asyncio.create_task(reader.run(found.append, 0.001))
    await asyncio.sleep(0.05)
    running.cancel()
    assert (found, cluster.asked) == ([], 0), "nodes that nobody depends on are not read either"


async def test_nodes_that_cannot_be_read_for_a_while_are_read_later(resource):
    cluster, found = Nodes(node("x")), set()
    reader = NodeReader(cluster)
    reader.depends(A, of_spec(resource(imagePreload={"mode": "External"}).spec, [IMAGE]))
    cluster.error = ClusterUnavailable("away")
    running = asyncio.create_task(reader.run(found.add, 0.001))
    async with asyncio.timeout(30):
        while cluster.asked < 2:  # noqa: ASYNC110 - a counter, not an event
            await asyncio.sleep(0.001)
        assert not found
        cluster.error = None
        while not found:  # noqa: ASYNC110 - a set, not an event
            await asyncio.sleep(0.001)
    running.cancel()
    assert found == {A}
