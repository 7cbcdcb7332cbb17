# SPDX-License-Identifier: Apache-2.0
"""What a Node tells: whether it takes new pods, and which images it holds (pure).

A kubelet lists the largest images only, 50 by default, each with at most five names, and refreshes the list within a
minute (https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1, nodeStatusMaxImages;
https://github.com/kubernetes/kubernetes, pkg/kubelet/nodestatus/setters.go). So an image that is not on a full list may be there.
"""

import re
from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

_COUNT = re.compile(r"([0-9]+)(k|M|G|Ki|Mi|Gi)?", re.ASCII)
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_DEFAULT_REGISTRY = "docker.io"


def is_schedulable(node: Json) -> bool:
    """Ready and not cordoned."""
    conditions = {each["type"]: each["status"] for each in (node.get("status") or {}).get("conditions", [])}
    return not (node.get("spec") or {}).get("unschedulable") and conditions.get("Ready") == "True"


def offered(node: Json, resource: str) -> int:
    """Units of an extended resource, such as nvidia.com/gpu, that a node has for pods; 0 where its amount is no count."""
    amount = ((node.get("status") or {}).get("allocatable") or {}).get(resource, 0)
    found = _COUNT.fullmatch(str(amount))
    return int(found[1]) * _UNITS[found[2] or ""] if found else 0


def holds(node: Json, image: str, most_listed: int) -> bool | None:
    """Whether the node has the image; None where its list cannot tell.

    Args:
        node: the live Node.
        image: reference of the image.
        most_listed: images that the kubelet lists at most; -1: all.
    """
    listed = (node.get("status") or {}).get("images") or []
    names = {full_name(name) for each in listed for name in each.get("names") or []}
    if full_name(image) in names:
        return True
    is_cut = most_listed >= 0 and len(listed) >= most_listed
    return None if is_cut or not listed else False


def full_name(image: str) -> str:
    """The reference as container runtimes write it: with registry, and with tag or digest; a digest beats a tag.

    >>> full_name("busybox"), full_name("a.example:5000/x:1@sha256:ab")
    ('docker.io/library/busybox:latest', 'a.example:5000/x@sha256:ab')
    """
    name, _, digest = image.partition("@")
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # the colon, if any, is that of a port
        path, tag = name, "latest"
    first, slash, _ = path.partition("/")
    if not slash:
        path = f"{_DEFAULT_REGISTRY}/library/{path}"
    elif not any(mark in first for mark in ".:") and first != "localhost":
        path = f"{_DEFAULT_REGISTRY}/{path}"
    return f"{path}@{digest}" if digest else f"{path}:{tag}"


def described(placement: Json) -> str:
    """Which nodes a placement selects, for a person: `pool=l4`, `one of the labels a, b`; of terms with more, their number.

    Args:
        placement: nodeSelector and affinity as a Pod has them.
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
    """The demands of a term; that a label has not a certain value is said by nothing but the label where it is demanded too."""
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
