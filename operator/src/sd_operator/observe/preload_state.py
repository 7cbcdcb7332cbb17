# SPDX-License-Identifier: Apache-2.0
"""Which nodes hold which of the images that are to be there beforehand, told by preload pods and nodes (pure).

A node has an image once a container runs it there. It has lost it again when its kubelet no longer lists it: a running
container keeps an image from the kubelet's garbage collection, but not from a person or another tool.
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

# A kubelet lists its images anew within a minute.
_LISTED_WITHIN = timedelta(minutes=2)


@dataclass(frozen=True)
class ImageState:
    """One image on the nodes.

    Attributes:
        image: its reference.
        matched: names of the nodes it should be on; `ready` those that hold it, `unknown` those that cannot tell.
        digest: what the reference means on the nodes, empty where nothing tells; `digests` counts the different ones.
        problems: what is in the way, at most one per node.
        waiting: of nodes that do not hold it yet though nothing is in the way: what they are doing, as `node a is ...`.
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
        unmade: nodes whose preload pod does not exist yet; `unmade_on` are their names, where they are known.
        settled: the counts are about the images of now.
        hidden: why the nodes cannot be seen; empty where they can.
        refused: what keeps preload pods or their DaemonSet from being made.
        sought: which nodes are looked for, as `one of the labels a, b`; one text for each placement.
        by_gpu_labels: labels of GPU nodes are looked for, since a worker group selects no nodes itself.
        unlabelled: names of nodes that offer the GPUs of the service, where none of the nodes that do is found so.
        former: images that clusters run and the spec does not ask for any more.
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
        """Nodes that hold all of them."""
        held = [each.ready for each in self.images]
        return len(held[0].intersection(*held[1:])) if held else 0

    @property
    def problems(self) -> tuple[PodProblem, ...]:
        """What is in the way, of all images."""
        refused = (self.refused,) if self.refused else ()
        return (*refused, *(found for each in self.images for found in each.problems))

    @property
    def waiting(self) -> tuple[str, ...]:
        """What nodes are doing that do not hold an image yet, of all images."""
        unmade = (f"node {name} has no preload pod yet" for name in self.unmade_on)
        return tuple(dict.fromkeys([*(each for image in self.images for each in image.waiting), *unmade]))

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
    """The state by preload DaemonSets and their pods.

    Nodes that are not ready or are cordoned do not count: no worker starts there.

    Args:
        daemon_sets: the live DaemonSets.
        pods: pods of these, and others.
        view: the nodes.
    """
    pods = list(pods)
    return joined(of_daemon_set(live, pods, view) for live in daemon_sets)


def of_daemon_set(live: Json, pods: Iterable[Json], view: View) -> PreloadState:
    """The state by one of them."""
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
    """The state by several DaemonSets; a node may be in more than one of them."""
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
    """What the pods of a preload DaemonSet have in common with its template, and with nothing else."""
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
        found = _trouble(image, pod, node, view)
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
    """What a node does that does not hold the image yet."""
    if all(each["image"] != image for each in pod["spec"]["containers"]):
        return "still has the former preload pod"
    if not pod["spec"].get("nodeName"):
        return "has not got its preload pod yet"
    since = _started(pod)
    return f"has been pulling since {since}" if since else "is pulling"


def _joined(one: ImageState, other: ImageState) -> ImageState:
    """The same image in two groups; a node may be in both."""
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
    names = {each["name"] for each in pod["spec"]["containers"] if each["image"] == image}
    statuses = (pod.get("status") or {}).get("containerStatuses", [])
    return next((each for each in statuses if each["name"] in names), None)


def _digest(container: Json) -> list[str]:
    """The image's digest; of one that never came from a registry, its identity."""
    found = container.get("imageID", "").rpartition("@")[2].removeprefix("docker-pullable://")
    return [found] if found.startswith("sha256:") else []


def _trouble(image: str, pod: Json, node: str, view: View) -> PodProblem | None:
    subject, status = f"node {node}", pod.get("status") or {}
    if status.get("phase") == "Failed":
        words = f"its preload pod {pod['metadata']['name']} was ended ({status.get('reason', 'Failed')}): {status.get('message', '')}"
        return PodProblem(Reason.IMAGE_LOST, subject, words)
    if all(each["image"] != image for each in pod["spec"]["containers"]):
        return None  # of the images before these, and about to be replaced
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
        f"image {image} was there and is not any more, by the node's list of images",
    )
