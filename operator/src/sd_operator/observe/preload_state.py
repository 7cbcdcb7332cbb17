# SPDX-License-Identifier: Apache-2.0
"""Which nodes hold which preloaded images, by preload pods and the nodes' image lists (pure).

A node has an image once a container runs it there. The node has lost the image if its kubelet no longer lists it. A
running container protects an image from the kubelet's garbage collection, but not from a person or another tool.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sd_operator import naming, times
from sd_operator.api.status import Reason
from sd_operator.json_types import Json
from sd_operator.observe import pod_problems
from sd_operator.observe.nodes import Node, described, holds
from sd_operator.observe.pod_problems import PodProblem

# A kubelet refreshes its list of images within a minute.
_LISTED_WITHIN = timedelta(minutes=2)


@dataclass(frozen=True)
class ImageState:
    """One image on the nodes.

    Attributes:
        image: reference of the image.
        matched: names of the nodes that should have it; `ready`: those that have it; `unknown`: those that may have it.
        digest: the digest of the image on the nodes; empty if unknown. `digests` counts the different ones.
        problems: the problems, at most one per node.
        waiting: what the other nodes without the image are doing, as `node a is ...`.
    """

    image: str
    matched: frozenset[str] = frozenset()
    ready: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    digest: str = ""
    digests: int = 0
    problems: tuple[PodProblem, ...] = ()
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreloadState:
    """All images on all nodes that worker groups select.

    Attributes:
        images: the runtime image first.
        unmade: number of nodes without a preload pod yet; `unmade_on` has their names, if they are known.
        settled: whether the counts are about the current images.
        hidden: why the operator cannot read nodes; empty if it can.
        refused: the problem that keeps preload pods or their DaemonSet from being created.
        sought: descriptions of matching nodes, as `one of the labels a, b`; one for each placement.
        by_gpu_labels: whether labels of GPU nodes decide, because a worker group selects no nodes itself.
        unlabelled: names of nodes that have the GPUs of the service, if none of these nodes has such a label.
        former: images that clusters still run and the spec no longer has.
    """

    images: tuple[ImageState, ...] = ()
    unmade: int = 0
    unmade_on: tuple[str, ...] = ()
    settled: bool = True
    hidden: str = ""
    refused: PodProblem | None = None
    sought: tuple[str, ...] = ()
    by_gpu_labels: bool = False
    unlabelled: tuple[str, ...] = ()
    former: tuple[ImageState, ...] = ()

    @property
    def nodes_matched(self) -> int:
        """Nodes that should hold the images."""
        return len(frozenset[str]().union(*(each.matched for each in self.images))) + self.unmade

    @property
    def nodes_ready(self) -> int:
        """Nodes that hold all of the images."""
        ready = [each.ready for each in self.images]
        return len(ready[0].intersection(*ready[1:])) if ready else 0

    @property
    def problems(self) -> tuple[PodProblem, ...]:
        """The problems of all images."""
        refused = (self.refused,) if self.refused else ()
        return (*refused, *(found for each in self.images for found in each.problems))

    @property
    def waiting(self) -> tuple[str, ...]:
        """What the nodes without an image are doing, for all images."""
        unmade = (f"node {name} has no preload pod yet" for name in self.unmade_on)
        return tuple(dict.fromkeys([*(each for image in self.images for each in image.waiting), *unmade]))

    @property
    def runtime_image_is_there(self) -> bool:
        """Whether every matching node holds the runtime image; True if no node matches."""
        first = next(iter(self.images), ImageState(""))
        return self.settled and not self.unmade and first.ready >= first.matched


@dataclass(frozen=True)
class View:
    """The nodes at one moment.

    Attributes:
        nodes: all nodes by name; None if the operator may not read them.
        most_listed: maximum of images that a kubelet lists; -1: all.
        now: the time, UTC.
    """

    nodes: Mapping[str, Node] | None
    most_listed: int
    now: datetime


def of_daemon_sets(daemon_sets: Iterable[Json], pods: Iterable[Json], view: View) -> PreloadState:
    """The preload state by preload DaemonSets and their pods.

    Nodes that are not ready or are cordoned do not count: no worker starts there.

    Args:
        daemon_sets: the live DaemonSets.
        pods: pods of these, and others.
        view: the nodes.
    """
    pods = list(pods)
    return joined(of_daemon_set(live, pods, view) for live in daemon_sets)


def of_daemon_set(live: Json, pods: Iterable[Json], view: View) -> PreloadState:
    """The preload state by one DaemonSet and its pods."""
    template, status = live["spec"]["template"], live.get("status") or {}
    mark = _mark(template["metadata"])
    found = (pod for pod in pods if _mark(pod["metadata"]) == mark)
    own = sorted((pod for pod in found if "deletionTimestamp" not in pod["metadata"]), key=node_name)
    images = dict.fromkeys(each["image"] for each in template["spec"]["containers"])
    return PreloadState(
        images=tuple(_on_nodes(each, own, view) for each in images),
        unmade=max(0, status.get("desiredNumberScheduled", 0) - len(own)),
        settled=status.get("observedGeneration", 0) >= live["metadata"].get("generation", 1),
        sought=(described(template["spec"]),),
    )


def joined(states: Iterable[PreloadState]) -> PreloadState:
    """The joined state of several DaemonSets; a node may match more than one of them."""
    states, images = list(states), dict[str, ImageState]()
    for state in states:
        for image in state.images:
            images[image.image] = _joined(images.get(image.image, ImageState(image.image)), image)
    return PreloadState(
        images=tuple(images.values()),
        unmade=sum(each.unmade for each in states),
        unmade_on=tuple(dict.fromkeys(name for each in states for name in each.unmade_on)),
        settled=all(each.settled for each in states),
        sought=tuple(dict.fromkeys(words for each in states for words in each.sought)),
    )


def _mark(metadata: Json) -> tuple[str | None, str | None]:
    """The two labels that the pods of a preload DaemonSet share with its template, and with no other object."""
    labels = metadata.get("labels") or {}
    return labels.get(naming.COMPONENT_LABEL), labels.get(naming.PRELOAD_LABEL)


def _on_nodes(image: str, pods: Iterable[Json], view: View) -> ImageState:
    matched, ready, digests = set[str](), set[str](), Counter[str]()
    problems, waiting = [], []
    for pod in pods:
        node = node_name(pod)
        if not node or not _counts(node, view):
            continue
        matched.add(node)
        found = _problem(image, pod, node, view)
        container = _container(image, pod)
        if container and "running" in (container.get("state") or {}) and found is None:
            ready.add(node)
            digests.update(_digest(container))
        elif found:
            problems.append(found)
        else:
            waiting.append(f"node {node} {_doing(image, pod)}")
    return ImageState(
        image,
        matched=frozenset(matched),
        ready=frozenset(ready),
        digest=min(digests, key=lambda each: (-digests[each], each), default=""),
        digests=len(digests),
        problems=tuple(problems),
        waiting=tuple(waiting),
    )


def _doing(image: str, pod: Json) -> str:
    """What a node without the image is doing."""
    if all(each["image"] != image for each in pod["spec"]["containers"]):
        return "still has the former preload pod"
    if not pod["spec"].get("nodeName"):
        return "does not have its preload pod yet"
    since = _started(pod)
    return f"has been pulling since {since}" if since else "is pulling"


def _joined(one: ImageState, other: ImageState) -> ImageState:
    """The joined state of one image in two DaemonSets; a node may be in both."""
    return replace(
        other,
        matched=one.matched | other.matched,
        ready=one.ready | other.ready,
        digest=one.digest or other.digest,
        digests=max(one.digests, other.digests, len({one.digest, other.digest} - {""})),
        problems=(*one.problems, *other.problems),
        waiting=tuple(dict.fromkeys((*one.waiting, *other.waiting))),
    )


def node_name(pod: Json) -> str:
    """Name of the pod's node; before the pod is bound, the node that the DaemonSet controller wrote into its affinity."""
    bound: str = pod["spec"].get("nodeName", "")
    return bound or next(_pinned(pod), "")


def _pinned(pod: Json) -> Iterator[str]:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or []:
        for each in term.get("matchFields") or []:
            yield from each.get("values") or []


def _counts(node: str, view: View) -> bool:
    """Whether a node counts: it is ready and not cordoned, or not known yet."""
    return view.nodes is None or node not in view.nodes or view.nodes[node].is_schedulable


def _container(image: str, pod: Json) -> Json | None:
    """Status of the container with this image in the pod's spec; the status itself may name the image differently."""
    names = {each["name"] for each in pod["spec"]["containers"] if each["image"] == image}
    statuses = (pod.get("status") or {}).get("containerStatuses", [])
    return next((each for each in statuses if each["name"] in names), None)


def _digest(container: Json) -> list[str]:
    """The digest of the image; for an image that never came from a registry, its ID."""
    found = container.get("imageID", "").rpartition("@")[2].removeprefix("docker-pullable://")
    return [found] if found.startswith("sha256:") else []


def _problem(image: str, pod: Json, node: str, view: View) -> PodProblem | None:
    subject, status = f"node {node}", pod.get("status") or {}
    if status.get("phase") == "Failed":
        words = f"its preload pod {pod['metadata']['name']} has ended ({status.get('reason', 'Failed')}): {status.get('message', '')}"
        return PodProblem(Reason.IMAGE_LOST, subject, words)
    if all(each["image"] != image for each in pod["spec"]["containers"]):
        return None  # a pod of former images, which is about to be replaced
    container = _container(image, pod)
    if container is None:
        found = pod_problems.of_pod(pod)
        return replace(found, subject=subject) if found else None
    started = _started(pod)
    # The kubelet's name of the image may differ from the reference that the user knows.
    found = pod_problems.of_container({**container, "image": image}, subject, started)
    return found or _loss(image, container, subject, (view.nodes or {}).get(node), view)


def _started(pod: Json) -> str:
    conditions = (pod.get("status") or {}).get("conditions", [])
    return next((each.get("lastTransitionTime", "") for each in conditions if each["type"] == "PodScheduled"), "")  # fmt: skip


def _loss(image: str, container: Json, subject: str, node: Node | None, view: View) -> PodProblem | None:
    running = (container.get("state") or {}).get("running")
    if node is None or not running or holds(node, image, view.most_listed) is not False:
        return None
    started = running.get("startedAt", "")
    if not started or view.now - times.parsed(started) < _LISTED_WITHIN:
        return None
    return PodProblem(
        Reason.IMAGE_LOST,
        subject,
        f"image {image} was on the node before, but the node's list of images no longer has it",
    )
