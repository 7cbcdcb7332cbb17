# SPDX-License-Identifier: Apache-2.0
"""What is read to say which nodes hold which images: nodes, and Events where preload pods are not made."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sd_operator import naming
from sd_operator.api import Spec
from sd_operator.cluster import CORE_EVENT, DAEMON_SET, POD, Cluster
from sd_operator.errors import Refused
from sd_operator.external_images import of_nodes
from sd_operator.naming import Key
from sd_operator.node_reader import NodeReader
from sd_operator.nodes import Node
from sd_operator.preload_state import PreloadState, View, of_daemon_sets
from sd_operator.trouble import Trouble, of_refused_pods

Json = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What the spec of now asks for.

    Attributes:
        spec: that spec.
        images: the images to have on the nodes, the runtime image first.
    """

    spec: Spec
    images: tuple[str, ...]


@dataclass(frozen=True)
class PreloadReader:
    """Reads it for one service at a time; the nodes are read for all together.

    Attributes:
        most_listed: images that a kubelet lists at most; -1: all.
    """

    cluster: Cluster
    nodes: NodeReader
    most_listed: int = 50
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def read(
        self, daemon_sets: tuple[Json, ...], pods: list[Json], asked: Asked | None
    ) -> PreloadState:
        """Which nodes hold the images, as they were ten seconds ago at most.

        Args:
            daemon_sets: the live preload DaemonSets of a service.
            pods: its live pods.
            asked: what is wanted, None where that is refused.
        """
        is_external = asked is not None and asked.spec.image_preload.mode == "External"
        if not daemon_sets and not is_external:
            return PreloadState()
        view = self._view(await self.nodes.read())
        if asked is not None and is_external:
            return of_nodes(asked.spec, asked.images, pods, view)
        state = of_daemon_sets(daemon_sets, pods, view)
        return replace(state, refused=await self._refused_pods(daemon_sets)) if state.unmade else state

    async def read_now(self, key: Key, daemon_sets: Iterable[Json]) -> PreloadState:
        """Which nodes hold the images that these DaemonSets bring, at this moment."""
        pods = await self.cluster.list(POD, key.namespace, naming.everything(key.name))
        return of_daemon_sets(daemon_sets, pods, self._view(await self.nodes.read(anew=True)))

    def _view(self, nodes: Mapping[str, Node] | None) -> View:
        return View(nodes, self.most_listed, self.clock())

    async def _refused_pods(self, daemon_sets: Iterable[Json]) -> Trouble | None:
        """What keeps preload pods from being made: a DaemonSet tells it by Events only."""
        for live in daemon_sets:
            name, namespace = live["metadata"]["name"], live["metadata"]["namespace"]
            fields = {"involvedObject.kind": DAEMON_SET.name, "involvedObject.name": name}
            try:
                events = await self.cluster.list(CORE_EVENT, namespace, fields=fields)
            except Refused:
                return None
            if found := of_refused_pods(events, f"preload pods of {name}"):
                return found
        return None
