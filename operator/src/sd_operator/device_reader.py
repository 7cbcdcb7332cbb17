# SPDX-License-Identifier: Apache-2.0
"""All nodes, and the pods that hold devices of theirs, for the estimate of whether a second cluster fits.

The pods are a read that grows with the whole cluster and not with the service. So it is made while an upgrade runs
only, once for all services that upgrade, and is good for ten seconds; what does not hold a device is not kept.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sd_operator.cluster import POD, Cluster
from sd_operator.errors import Refused
from sd_operator.headroom import holds_a_device
from sd_operator.node_reader import NodeReader

Json = dict[str, Any]

KEPT_SECONDS = 10.0


@dataclass(frozen=True)
class Devices:
    """Who offers devices, and who holds them."""

    nodes: list[Json]
    pods: list[Json]


class DeviceReader:
    """What was read last, while it is good."""

    def __init__(
        self, cluster: Cluster, nodes: NodeReader, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._found: Devices | None = None
        self._good_until = float("-inf")

    async def read(self) -> Devices | None:
        """Nodes and pods, each as ten to twenty seconds ago at most; None where we may not read them.

        Raises:
            ClusterUnavailable: the API server is away or busy.
        """
        async with self._one_at_a_time:
            if self._clock() >= self._good_until:
                self._found = await self._look()
                self._good_until = self._clock() + KEPT_SECONDS
            return self._found

    async def _look(self) -> Devices | None:
        nodes = await self._nodes.read()
        if nodes is None:
            return None
        try:
            pods = await self._cluster.list(POD, None)
        except Refused:
            return None
        return Devices(list(nodes.values()), [pod for pod in pods if holds_a_device(pod)])
