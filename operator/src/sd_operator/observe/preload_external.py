# SPDX-License-Identifier: Apache-2.0
"""Mode External: which nodes hold images that a data volume, a secondary disk or a machine image provides (pure).

The operator verifies this by the node's list of images, and by the start time of a worker's first container. The list
alone is not enough: a pulled image is on the list afterwards too. An image on a lazily loaded volume is on the list from
the start, and still takes minutes (https://github.com/aws-samples/bottlerocket-images-cache/issues/13).
"""

from collections.abc import Iterable, Mapping

from sd_operator import naming, times
from sd_operator.api import Spec
from sd_operator.api.capacity import gpus_per_worker
from sd_operator.api.status import Reason
from sd_operator.builders.placement import worker_placement
from sd_operator.json_types import Json
from sd_operator.observe.node_matching import accepts
from sd_operator.observe.nodes import Node, holds
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.preload_state import ImageState, PreloadState, View

_SLOW_SECONDS = 15


def of_nodes(spec: Spec, images: Iterable[str], pods: Iterable[Json], view: View) -> PreloadState:
    """The state of the images by the nodes' image lists and the starts of workers.

    Args:
        spec: the spec.
        images: references of the images, the runtime image first.
        pods: pods of the resource.
        view: the nodes.
    """
    images = list(images)
    if view.nodes is None:
        hidden = "it may not read nodes. Allow the operator to get and list nodes"
        return PreloadState(tuple(map(ImageState, images)), hidden=hidden)
    matching = {name: node for name, node in view.nodes.items() if _takes_workers(node, spec)}
    slow = dict(filter(None, map(_slow_start, pods)))
    # The start of a worker shows only when the runtime image was needed.
    found = (_on_nodes(each, matching, view, {} if number else slow) for number, each in enumerate(images))
    return PreloadState(tuple(found))


def _takes_workers(node: Node, spec: Spec) -> bool:
    """Whether the node is ready, accepts pods of a worker group, and has the GPUs that a worker needs."""
    offered = node.offers(spec.gpu_resource_name)
    return node.is_schedulable and any(
        offered >= gpus_per_worker(spec, group) and accepts(node, worker_placement(spec, group))
        for group in spec.worker_groups
    )


def _on_nodes(image: str, nodes: Mapping[str, Node], view: View, slow: Mapping[str, str]) -> ImageState:
    found = {name: holds(node, image, view.most_listed) for name, node in nodes.items()}
    absent = f"image {image} is not on the node's list of images"
    words = {name: absent for name, held in found.items() if held is False}
    words |= {name: message for name, message in slow.items() if name in nodes}
    return ImageState(
        image,
        matched=frozenset(nodes),
        ready=frozenset(name for name, held in found.items() if held and name not in words),
        unknown=frozenset(name for name, held in found.items() if held is None and name not in words),
        problems=tuple(
            PodProblem(Reason.IMAGE_NOT_PRELOADED, f"node {name}", message)
            for name, message in sorted(words.items())
        ),
    )


def _slow_start(pod: Json) -> tuple[str, str] | None:
    """Node and message if a worker's first container started long after its sandbox; None if not.

    The image is pulled between the two.
    """
    labels, status = pod["metadata"].get("labels") or {}, pod.get("status") or {}
    if labels.get("ray.io/node-type") != "worker" or naming.RAY_POD_LABEL not in labels:
        return None
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    sandbox = conditions.get("PodReadyToStartContainers", {})
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    first: Json = containers[0] if containers else {}
    state = first.get("state") or {}
    stamp = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    if sandbox.get("status") != "True" or not stamp or first.get("restartCount"):
        return None
    seconds = (times.parsed(stamp) - times.parsed(sandbox["lastTransitionTime"])).total_seconds()
    if seconds < _SLOW_SECONDS:
        return None
    words = (
        f"the first container of worker {pod['metadata']['name']} started {seconds:.0f} s after its sandbox: the image"
        " was pulled at that time, or its volume loads lazily"
    )
    return pod["spec"].get("nodeName", ""), words
