# SPDX-License-Identifier: Apache-2.0
"""The few facts of a Node that the operator uses: whether it accepts new pods, and which images it holds (pure).

A live Node is tens of kilobytes of JSON, mostly image names and managedFields. The operator keeps thousands of nodes, so
it reduces each one to its facts as soon as it is read.

A kubelet lists its largest images only: 50 by default, each with at most five names. It refreshes the list within a
minute. (https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1, nodeStatusMaxImages;
https://github.com/kubernetes/kubernetes, pkg/kubelet/nodestatus/setters.go.) An image that is missing on a full list may
therefore still be on the node.
"""

import re
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from sd_operator.json_types import Json

_COUNT = re.compile(r"([0-9]+)(k|M|G|Ki|Mi|Gi)?", re.ASCII)
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_DEFAULT_REGISTRY = "docker.io"
_NAMES_REMEMBERED = 4096


@dataclass(frozen=True)
class ImageList:
    """The images that a kubelet lists.

    Names are kept as sorted 64-bit hashes: 250 hashes need 2 KB instead of 30 KB. The chance that two names of one cluster
    share a hash is one in a trillion.

    Attributes:
        names: hashes of all full names.
        count: number of images on the list.
    """

    names: "array[int]"
    count: int

    def __contains__(self, name: str) -> bool:
        """Whether the list contains this full name."""
        sought = hash(name)
        index = bisect_left(self.names, sought)
        return index < len(self.names) and self.names[index] == sought


_NOTHING_LISTED = ImageList(array("q"), 0)


@dataclass(frozen=True, slots=True)
class Node:
    """The facts of one node.

    Attributes:
        is_schedulable: whether it is ready and not cordoned.
        taints: its taints, as in the Node.
        allocatable: amounts by resource, as in the Node.
    """

    name: str
    is_schedulable: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Json, ...] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)
    images: ImageList = _NOTHING_LISTED

    def offers(self, resource: str) -> int:
        """Allocatable units of an extended resource such as nvidia.com/gpu; 0 if the amount is not a count."""
        found = _COUNT.fullmatch(str(self.allocatable.get(resource, "")))
        return int(found[1]) * _UNITS[found[2] or ""] if found else 0


def read_node(live: Json) -> Node:
    """The facts of a live Node; labels and amounts that several nodes share are kept once."""
    metadata, spec, status = live["metadata"], live.get("spec") or {}, live.get("status") or {}
    ready = next((each["status"] for each in status.get("conditions", []) if each["type"] == "Ready"), "")
    return Node(
        name=sys.intern(metadata["name"]),
        is_schedulable=ready == "True" and not spec.get("unschedulable"),
        labels=_shared(metadata.get("labels")),
        taints=tuple(spec.get("taints") or ()),
        allocatable=_shared(status.get("allocatable")),
        images=_images(status.get("images") or ()),
    )


def holds(node: Node, image: str, most_listed: int) -> bool | None:
    """Whether the node has the image; None if its list does not show this.

    Args:
        node: the node.
        image: reference of the image.
        most_listed: maximum of images that the kubelet lists; -1: all.
    """
    if full_name(image) in node.images:
        return True
    is_cut = most_listed >= 0 and node.images.count >= most_listed
    return None if is_cut or not node.images.count else False


@lru_cache(_NAMES_REMEMBERED)
def full_name(image: str) -> str:
    """The full reference as container runtimes write it: with registry, and with tag or digest; a digest replaces the tag.

    >>> full_name("busybox"), full_name("a.example:5000/x:1@sha256:ab")
    ('docker.io/library/busybox:latest', 'a.example:5000/x@sha256:ab')
    """
    name, _, digest = image.partition("@")
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # a colon here belongs to a port
        path, tag = name, "latest"
    first, slash, _ = path.partition("/")
    if not slash:
        path = f"{_DEFAULT_REGISTRY}/library/{path}"
    elif not any(mark in first for mark in ".:") and first != "localhost":
        path = f"{_DEFAULT_REGISTRY}/{path}"
    return f"{path}@{digest}" if digest else f"{path}:{tag}"


def described(placement: Json) -> str:
    """A readable description of the nodes that a placement selects: `pool=l4`, `one of the labels a, b`.

    Several terms of node affinity with more than one expression are counted.

    Args:
        placement: nodeSelector and affinity as in a Pod.
    """
    selected = [f"{key}={value}" for key, value in sorted((placement.get("nodeSelector") or {}).items())]
    required = ((placement.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED) or {}
    terms = [_demands(term) for term in required.get("nodeSelectorTerms") or []]
    if len(terms) == 1:
        selected += terms[0]
    elif all(len(term) == 1 for term in terms) and terms:
        selected.append(f"one of the labels {', '.join(dict.fromkeys(term[0] for term in terms))}")
    elif terms:
        selected.append(f"one of {len(terms)} terms of node affinity: {'; '.join(map(' and '.join, terms))}")
    return " and ".join(selected)


def _demands(term: Json) -> list[str]:
    """Descriptions of the expressions of a term; `NotIn` is left out if the term also demands the label itself."""
    expressions = [*(term.get("matchExpressions") or []), *(term.get("matchFields") or [])]
    there = {each["key"] for each in expressions if each["operator"] == "Exists"}
    return [_demand(each) for each in expressions if each["operator"] != "NotIn" or each["key"] not in there]


def _demand(expression: Json) -> str:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "Exists":
            return str(key)
        case "In" if len(values) == 1:
            return f"{key}={values[0]}"
        case operator:
            return " ".join([key, operator, *([", ".join(values)] if values else [])])


def _shared(texts: Mapping[str, str] | None) -> dict[str, str]:
    return {sys.intern(key): sys.intern(value) for key, value in (texts or {}).items()}


def _images(listed: Iterable[Json]) -> ImageList:
    listed = tuple(listed)
    names = {hash(_written_out(name)) for each in listed for name in each.get("names") or ()}
    return ImageList(array("q", sorted(names)), len(listed))


def _written_out(name: str) -> str:
    """The full name of a listed image; a name with a registry is already full, which saves time for hundreds per node."""
    return name if "." in name.partition("/")[0] else full_name(name)
