# SPDX-License-Identifier: Apache-2.0
"""The nodes of the cluster, read for all services together and at most every few seconds: they are large and many."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from sd_operator.cluster import NODE, Cluster
from sd_operator.errors import Refused

Json = dict[str, Any]

_FRESH_SECONDS = 10.0


class NodeReader:
    """Remembers one LIST; holds nothing that another LIST would not tell."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")
        self._nodes: Mapping[str, Json] | None = None

    async def read(self, *, anew: bool = False) -> Mapping[str, Json] | None:
        """Nodes by name, at most ten seconds old; None where they may not be read.

        Args:
            anew: as they are now, for what is decided once: a node may have become ready since.
        """
        async with self._lock:
            if anew or self._clock() - self._read_at >= _FRESH_SECONDS:
                try:
                    listed = await self._cluster.list(NODE, None)
                except Refused:
                    self._nodes = None
                else:
                    self._nodes = {each["metadata"]["name"]: each for each in listed}
                self._read_at = self._clock()
            return self._nodes
