# SPDX-License-Identifier: Apache-2.0
"""Reads the nodes of the cluster for all services together: page by page, reduced to the facts in use, and rarely.

The operator does not watch nodes: kubelets write them all the time, and almost no such change concerns a service. Each
LIST is compared with the one before. A service is reconciled if a node changed in a fact on which the service depends.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from sd_operator.errors import Refused, SdServiceError
from sd_operator.kube import NODE, Cluster
from sd_operator.naming import Key
from sd_operator.observe.node_dependency import NodeDependency, concerns
from sd_operator.observe.nodes import Node, read_node

logger = logging.getLogger(__name__)

_FRESH_SECONDS = 10.0
_SHARE = 20  # of the time, at most a twentieth goes into reading nodes


class NodeReader:
    """Caches the nodes of the last LIST, and knows on which of their facts each service depends.

    Args:
        cluster: the API server.
        clock: monotonic seconds.
        most_listed: maximum of images that a kubelet lists; -1: all.
    """

    def __init__(
        self, cluster: Cluster, clock: Callable[[], float] = time.monotonic, most_listed: int = 50
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._most_listed = most_listed
        self._lock = asyncio.Lock()
        self._lists = 0
        self._good_until = float("-inf")
        self._nodes: Mapping[str, Node] | None = None
        self._dependencies: dict[Key, NodeDependency] = {}
        self._changed: Callable[[Key], None] = lambda _: None

    async def read(self, *, fresh: bool = False) -> Mapping[str, Node] | None:
        """The nodes by name; None if the operator may not read them.

        They are at most ten seconds old, or twenty times the duration of a LIST if that is longer.

        Args:
            fresh: use a LIST that starts now or later. A decision that is made only once needs it, because a node may have
                become ready since the last LIST.

        Raises:
            ClusterUnavailable: the API server is away or busy.
        """
        started = self._lists
        async with self._lock:
            if self._clock() >= self._good_until or (fresh and self._lists == started):
                await self._list()
            return self._nodes

    def depends(self, key: Key, dependency: NodeDependency | None) -> None:
        """Register the dependency of a service; None: it depends on no node. Call it before `read`, to miss no change."""
        if dependency is None:
            self._dependencies.pop(key, None)
        else:
            self._dependencies[key] = dependency

    async def run(self, changed: Callable[[Key], None], seconds: float) -> None:
        """List the nodes periodically until cancelled, while a service depends on one.

        Args:
            changed: called with each service that a change concerns, after every LIST.
            seconds: seconds between two LISTs.
        """
        self._changed = changed
        while True:
            await asyncio.sleep(seconds)
            if not self._dependencies:
                continue
            try:
                await self.read()
            except SdServiceError as error:
                logger.warning("cannot list nodes: %s; next try in %.0f s", error, seconds)

    async def _list(self) -> None:
        self._lists += 1
        started, before = self._clock(), self._nodes
        try:
            after = await self._all(before or {})
        except Refused:
            after = None
        took = self._clock() - started
        self._nodes, self._good_until = after, started + max(_FRESH_SECONDS, _SHARE * took)
        await self._report(before or {}, after or {})

    async def _all(self, before: Mapping[str, Node]) -> Mapping[str, Node] | None:
        """All nodes by name; an unchanged node keeps its former object."""
        found = {}
        async for page in self._cluster.pages(NODE, None):
            for live in page:
                node = read_node(live)
                known = before.get(node.name)
                found[node.name] = known if known == node else node
        return found

    async def _report(self, before: Mapping[str, Node], after: Mapping[str, Node]) -> None:
        """Report each service that depends on a changed fact; equal dependencies are compared once."""
        changes = [
            (before.get(name), after.get(name))
            for name in before.keys() | after.keys()
            if before.get(name) is not after.get(name)
        ]
        if not changes:
            return
        keys = defaultdict[NodeDependency, list[Key]](list)
        for key, dependency in self._dependencies.items():
            keys[dependency].append(key)
        for dependency, concerned in keys.items():
            if concerns(dependency, changes, self._most_listed):
                for key in concerned:
                    self._changed(key)
            await asyncio.sleep(0)
