# SPDX-License-Identifier: Apache-2.0
"""Which nodes hold which of the images that are to be there beforehand, told by preload pods and nodes (pure).

A node has an image once a container runs it there. It has lost it again when its kubelet no longer lists it: a running
container keeps an image from the kubelet's garbage collection, but not from a person or another tool.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sd_operator import naming, times, trouble
from sd_operator.api.status import Reason
from sd_operator.nodes import Node, holds
from sd_operator.trouble import Trouble

Json = Mapping[str, Any]

# A kubelet lists its images anew within a minute.
_LISTED_WITHIN = timedelta(minutes=2)


@dataclass(frozen=True)
class ImageState:
    """One image on the nodes.

    Attributes:
        image: its reference.
        matched: names of the nodes it should be on; `ready` those that hold it, `unknown` those that cannot tell.
        digest: what the reference means on the nodes, empty where nothing tells; `digests` counts the different ones.
        troubles: what is in the way, at most one per node.
    """

    image: str
    matched: frozenset[str] = frozenset()
    ready: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    digest: str = ""
    digests: int = 0
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True)
class PreloadState:
    """All images on all nodes that worker groups select.

    Attributes:
        images: the runtime image first.
        unmade: nodes whose preload pod does not exist yet.
        settled: the counts are about the images of now.
        since: when the wish last changed, UTC; empty where nothing tells.
        hidden: why the nodes cannot be seen; empty where they can.
        refused: what keeps preload pods from being made.
    """

    images: tuple[ImageState, ...] = ()
    unmade: int = 0
    settled: bool = True
    since: str = ""
    hidden: str = ""
    refused: Trouble | None = None

    @property
    def nodes_matched(self) -> int:
        """Nodes that should hold the images."""
        return len(frozenset[str]().union(*(each.matched for each in self.images))) + self.unmade

    @property
    def nodes_ready(self) -> int:
        """Nodes that hold all of them."""
        held = [each.ready for each in self.images]
        return len(held[0].intersection(*held[1:])) if held else 0

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """What is in the way, of all images."""
        refused = (self.refused,) if self.refused else ()
        return (*refused, *(found for each in self.images for found in each.troubles))

    @property
    def runtime_image_is_there(self) -> bool:
        """Every node that is ready now holds the runtime image; so it is where no node matches."""
        first = next(iter(self.images), ImageState(""))
        return self.settled and not self.unmade and first.ready >= first.matched


@dataclass(frozen=True)
class View:
    """What there is to see of nodes.

    Attributes:
        nodes: all nodes by name; None where they may not be read.
        most_listed: images that a kubelet lists at most; -1: all.
        now: the time, UTC.
    """

    nodes: Mapping[str, Node] | None
    most_listed: int
    now: datetime


def of_daemon_sets(daemon_sets: Iterable[Json], pods: Iterable[Json], view: View) -> PreloadState:
    """The state by the preload DaemonSets of a resource and their pods.

    Nodes that are not ready or are cordoned do not count: no worker starts there.

    Args:
        daemon_sets: the live DaemonSets.
        pods: pods of the resource, those of other components too.
        view: the nodes.
    """
    daemon_sets, by_component = list(daemon_sets), dict[str, list[Json]]()
    for pod in pods:
        component = (pod["metadata"].get("labels") or {}).get(naming.COMPONENT_LABEL, "")
        by_component.setdefault(component, []).append(pod)
    images: dict[str, ImageState] = {}
    unmade, settled, since = 0, True, ""
    for live in daemon_sets:
        template = live["spec"]["template"]
        own = by_component.get(template["metadata"]["labels"][naming.COMPONENT_LABEL], [])
        own = sorted((pod for pod in own if "deletionTimestamp" not in pod["metadata"]), key=_node_name)
        status = live.get("status") or {}
        settled = settled and status.get("observedGeneration", 0) >= live["metadata"].get("generation", 1)
        unmade += max(0, status.get("desiredNumberScheduled", 0) - len(own))
        since = max(since, _changed(live))
        for container in template["spec"]["containers"]:
            if container["name"] == naming.WEIGHTS:
                continue  # the image is that of another container
            image = container["image"]
            images[image] = _joined(images.get(image, ImageState(image)), _on_nodes(image, own, view))
    return PreloadState(tuple(images.values()), unmade, settled, since)


def _changed(live: Json) -> str:
    """When the DaemonSet was last written by us: the API server stamps each write that changes something."""
    stamps = [
        entry.get("time", "")
        for entry in live["metadata"].get("managedFields", [])
        if entry.get("manager") == naming.FIELD_MANAGER
    ]
    return max(stamps, default=live["metadata"].get("creationTimestamp") or "")


def _on_nodes(image: str, pods: Iterable[Json], view: View) -> ImageState:
    matched, ready, digests = set[str](), set[str](), Counter[str]()
    troubles = []
    for pod in pods:
        node = _node_name(pod)
        if not node or not _counts(node, view):
            continue
        matched.add(node)
        found = _trouble(image, pod, node, view)
        container = _container(image, pod)
        if container and "running" in (container.get("state") or {}) and found is None:
            ready.add(node)
            digests.update(_digest(container))
        elif found:
            troubles.append(found)
    digest = min(digests, key=lambda each: (-digests[each], each), default="")
    return ImageState(
        image, frozenset(matched), frozenset(ready), frozenset(), digest, len(digests), tuple(troubles)
    )


def _joined(one: ImageState, other: ImageState) -> ImageState:
    """The same image in two groups; a node may be in both."""
    return replace(
        other,
        matched=one.matched | other.matched,
        ready=one.ready | other.ready,
        digest=one.digest or other.digest,
        digests=max(one.digests, other.digests, len({one.digest, other.digest} - {""})),
        troubles=(*one.troubles, *other.troubles),
    )


def _node_name(pod: Json) -> str:
    """Where it runs; before it is bound, the node that the DaemonSet controller wrote into its affinity."""
    bound: str = pod["spec"].get("nodeName", "")
    return bound or next(_pinned(pod), "")


def _pinned(pod: Json) -> Iterator[str]:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or []:
        for each in term.get("matchFields") or []:
            yield from each.get("values") or []


def _counts(node: str, view: View) -> bool:
    """One that is not known yet counts."""
    return view.nodes is None or node not in view.nodes or view.nodes[node].is_schedulable


def _container(image: str, pod: Json) -> Json | None:
    """Status of the container that was made from this reference; the status itself may name the image otherwise."""
    names = {each["name"] for each in pod["spec"]["containers"] if each["image"] == image} - {naming.WEIGHTS}
    statuses = (pod.get("status") or {}).get("containerStatuses", [])
    return next((each for each in statuses if each["name"] in names), None)


def _digest(container: Json) -> list[str]:
    """The image's digest; of one that never came from a registry, its identity."""
    found = container.get("imageID", "").rpartition("@")[2].removeprefix("docker-pullable://")
    return [found] if found.startswith("sha256:") else []


def _trouble(image: str, pod: Json, node: str, view: View) -> Trouble | None:
    subject, status = f"node {node}", pod.get("status") or {}
    if status.get("phase") == "Failed":
        words = f"its preload pod {pod['metadata']['name']} was ended ({status.get('reason', 'Failed')}): {status.get('message', '')}"
        return Trouble(Reason.IMAGE_LOST, subject, words)
    if all(each["image"] != image for each in pod["spec"]["containers"]):
        return None  # of the images before these, and about to be replaced
    container = _container(image, pod)
    if container is None:
        found = trouble.of_pod(pod)
        return replace(found, subject=subject) if found else None
    started = _started(pod)
    # The kubelet's name of the image may differ from the reference that the user knows.
    found = trouble.of_container({**container, "image": image}, subject, started)
    return found or _loss(image, container, subject, (view.nodes or {}).get(node), view)


def _started(pod: Json) -> str:
    conditions = (pod.get("status") or {}).get("conditions", [])
    return next((each.get("lastTransitionTime", "") for each in conditions if each["type"] == "PodScheduled"), "")  # fmt: skip


def _loss(image: str, container: Json, subject: str, node: Node | None, view: View) -> Trouble | None:
    running = (container.get("state") or {}).get("running")
    if node is None or not running or holds(node, image, view.most_listed) is not False:
        return None
    started = running.get("startedAt", "")
    if not started or view.now - times.parsed(started) < _LISTED_WITHIN:
        return None
    return Trouble(
        Reason.IMAGE_LOST,
        subject,
        f"image {image} was there and is not any more, by the node's list of images",
    )
