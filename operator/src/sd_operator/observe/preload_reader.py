# SPDX-License-Identifier: Apache-2.0
"""Reads which nodes hold which images: from preload pods, nodes, and Events about preload pods that were refused."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property

from sd_operator import naming
from sd_operator.api import Spec
from sd_operator.builders.preload import brings_images, relies_on_gpu_labels
from sd_operator.errors import Refused
from sd_operator.json_types import Json
from sd_operator.kube import CORE_EVENT, DAEMON_SET, POD, Cluster
from sd_operator.kube.ownership import is_shared
from sd_operator.kube.preload_sharing import SharedPreloads
from sd_operator.observe.node_cache import NodeReader
from sd_operator.observe.node_matching import accepts
from sd_operator.observe.nodes import Node
from sd_operator.observe.pod_problems import PodProblem, of_refused_pods
from sd_operator.observe.preload_external import of_nodes
from sd_operator.observe.preload_state import (
    ImageState,
    PreloadState,
    View,
    joined,
    node_name,
    of_daemon_set,
)
from sd_operator.recent import Recent

_FRESH_SECONDS = 10.0
_MOST_STATES = 1000


@dataclass(frozen=True)
class DesiredImages:
    """The current spec and its images.

    Attributes:
        spec: the current spec.
        images: the images to preload, the runtime image first.
    """

    spec: Spec
    images: tuple[str, ...]


@dataclass(frozen=True)
class PreloadReader:
    """Reads the preload state of one service; nodes, and pods of shared DaemonSets, are read for all services together.

    Attributes:
        most_listed: maximum of images that a kubelet lists; -1: all.
    """

    cluster: Cluster
    nodes: NodeReader
    most_listed: int = 50
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _states: Recent[tuple[str, int], PreloadState] = field(
        default_factory=lambda: Recent(_FRESH_SECONDS, most=_MOST_STATES), repr=False
    )

    @cached_property
    def shared(self) -> SharedPreloads:
        """The DaemonSets that services share."""
        return SharedPreloads(self.cluster)

    async def read(
        self, daemon_sets: tuple[Json, ...], pods: list[Json], asked: DesiredImages | None
    ) -> PreloadState:
        """Which nodes hold the images; at most ten seconds old.

        Args:
            daemon_sets: the live preload DaemonSets that the service uses: the desired ones, and those whose image still runs.
            pods: its live pods.
            asked: the desired images; None if the spec is refused.
        """
        is_external = asked is not None and asked.spec.image_preload.mode == "External"
        brings = asked is not None and brings_images(asked.spec)
        if not (daemon_sets or brings or is_external):
            return PreloadState()
        view = self._view(await self.nodes.read())
        if asked is not None and is_external:
            return of_nodes(asked.spec, asked.images, pods, view)
        wanted, former = _by_image(daemon_sets, asked)
        state = await self._joined(wanted, pods, view)
        if brings and asked is not None:
            state = _of_wanted(state, asked, view)
        if state.unmade:
            state = replace(state, refused=await self._refused_pods(wanted))
        return replace(state, former=(await self._joined(former, pods, view)).images)

    async def read_now(self, daemon_sets: Iterable[Json], asked: DesiredImages) -> PreloadState:
        """Which nodes hold the images of these shared DaemonSets, by a new read of nodes and pods."""
        view = self._view(await self.nodes.read(fresh=True))
        return _of_wanted(await self._joined(daemon_sets, [], view, fresh=True), asked, view)

    async def holding(self, daemon_sets: Iterable[Json], asked: DesiredImages) -> list[Json]:
        """Those of these shared DaemonSets whose runtime image is on every matching node, by a new read."""
        return [each for each in daemon_sets if (await self.read_now([each], asked)).runtime_image_is_there]

    async def _joined(
        self, daemon_sets: Iterable[Json], pods: list[Json], view: View, *, fresh: bool = False
    ) -> PreloadState:
        return joined([await self._state(each, pods, view, fresh=fresh) for each in daemon_sets])

    async def _state(self, live: Json, pods: list[Json], view: View, *, fresh: bool) -> PreloadState:
        """The state of one DaemonSet, computed once for all services that share it."""
        metadata = live["metadata"]
        if not is_shared(live):
            return _with_names(of_daemon_set(live, pods, view), live, pods, view)

        async def read() -> PreloadState:
            key = metadata["labels"][naming.PRELOAD_LABEL]
            found = await self.cluster.list(POD, metadata["namespace"], naming.preload_labels(key))
            return _with_names(of_daemon_set(live, found, view), live, found, view)

        version = hash((metadata.get("generation"), str(live.get("status"))))
        return await self._states.get((metadata["uid"], version), read, fresh=fresh)

    def _view(self, nodes: Mapping[str, Node] | None) -> View:
        return View(nodes, self.most_listed, self.clock())

    async def _refused_pods(self, daemon_sets: Iterable[Json]) -> PodProblem | None:
        """The problem that keeps preload pods from being created; a DaemonSet reports it only by Events."""
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


def _by_image(daemon_sets: Iterable[Json], asked: DesiredImages | None) -> tuple[list[Json], list[Json]]:
    """DaemonSets of the desired runtime image, and the others; if the spec is refused, all count as desired."""
    wanted, former = list[Json](), list[Json]()
    for each in daemon_sets:
        image = each["spec"]["template"]["spec"]["containers"][0]["image"]
        (wanted if asked is None or image == asked.images[0] else former).append(each)
    return wanted, former


def _of_wanted(state: PreloadState, asked: DesiredImages, view: View) -> PreloadState:
    """The same state with facts from the spec: images without a DaemonSet yet, and GPU nodes without a known label."""
    there = {each.image: each for each in state.images}
    images = tuple(there.pop(name, ImageState(name)) for name in asked.images)
    settled = state.settled and bool(state.images)
    state = replace(state, images=(*images, *there.values()), settled=settled)
    if state.nodes_matched or not relies_on_gpu_labels(asked.spec):
        return state
    return replace(state, by_gpu_labels=True, unlabelled=_offering(asked.spec, view))


def _offering(spec: Spec, view: View) -> tuple[str, ...]:
    """Names of the nodes that have the GPU resource of the workers."""
    nodes = (view.nodes or {}).items()
    return tuple(name for name, node in nodes if node.is_schedulable and node.offers(spec.gpu_resource_name))


def _with_names(state: PreloadState, live: Json, pods: Iterable[Json], view: View) -> PreloadState:
    """The same state with the names of nodes that have no pod of the DaemonSet yet."""
    if not state.unmade:
        return state
    have, where = {node_name(pod) for pod in pods}, live["spec"]["template"]["spec"]
    nodes = (view.nodes or {}).items()
    lacking = (
        name for name, node in nodes if name not in have and node.is_schedulable and accepts(node, where)
    )
    return replace(state, unmade_on=tuple(sorted(lacking)[: state.unmade]))
