# SPDX-License-Identifier: Apache-2.0
import asyncio

from sd_operator.errors import Refused
from sd_operator.node_reader import NodeReader


class Nodes:
    """A cluster of one node that counts how often it is asked."""

    def __init__(self, *, refuses=False):
        self.asked, self.refuses = 0, refuses

    async def list(self, kind, namespace):
        self.asked += 1
        await asyncio.sleep(0)
        if self.refuses:
            raise Refused("nodes is forbidden")
        return [{"metadata": {"name": "a"}}]


async def test_one_list_serves_all_for_ten_seconds():
    cluster, now = Nodes(), [100.0]
    reader = NodeReader(cluster, lambda: now[0])
    found = await asyncio.gather(*(reader.read() for _ in range(8)))
    assert (found, cluster.asked) == ([{"a": {"metadata": {"name": "a"}}}] * 8, 1)
    now[0] += 10
    await reader.read()
    assert cluster.asked == 2
    await reader.read(anew=True)
    assert cluster.asked == 3, "a decision wants them as they are now"


async def test_nodes_that_may_not_be_read_are_not_asked_for_at_each_look():
    cluster = Nodes(refuses=True)
    reader = NodeReader(cluster, lambda: 0.0)
    assert [await reader.read(), await reader.read()] == [None, None]
    assert cluster.asked == 1
