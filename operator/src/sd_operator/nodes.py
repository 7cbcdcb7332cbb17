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
