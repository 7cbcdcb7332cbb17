# SPDX-License-Identifier: Apache-2.0
"""Builds node selectors, tolerations and affinity of a pod, in the form of the Pod API."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from sd_operator.api import Spec, Toleration, WorkerGroup
from sd_operator.api.affinity import Affinity
from sd_operator.json_types import Json

# Karpenter and EKS managed node groups use different labels for the capacity type. A node has one of the two labels.
_CAPACITY_LABELS = {
    "on-demand": (
        ("karpenter.sh/capacity-type", "on-demand"),
        ("eks.amazonaws.com/capacityType", "ON_DEMAND"),
    ),
    "spot": (("karpenter.sh/capacity-type", "spot"), ("eks.amazonaws.com/capacityType", "SPOT")),
}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


class GpuNodeLabel(NamedTuple):
    """A label that only nodes with GPUs carry.

    Attributes:
        key: key of the label.
        vendor: domain of the resources on such a node, such as amd.com; empty: any vendor.
        head_avoids: the head prefers nodes without this label. The preference is part of the head's pod, and a change
            starts a new cluster for every service. So labels that are added later are used only for preload.
    """

    key: str
    vendor: str = ""
    head_avoids: bool = False


GPU_NODE_LABELS = (
    GpuNodeLabel("nvidia.com/gpu.present", "nvidia.com", head_avoids=True),  # GPU feature discovery
    GpuNodeLabel("karpenter.k8s.aws/instance-gpu-count", head_avoids=True),  # Karpenter on AWS
    GpuNodeLabel("eks.amazonaws.com/instance-gpu-count", head_avoids=True),  # EKS Auto Mode
    GpuNodeLabel("cloud.google.com/gke-accelerator", "nvidia.com", head_avoids=True),  # GKE
    GpuNodeLabel("kubernetes.azure.com/accelerator"),  # AKS
    GpuNodeLabel("karpenter.azure.com/sku-gpu-count"),  # Karpenter on Azure
    GpuNodeLabel("feature.node.kubernetes.io/pci-0300_10de.present", "nvidia.com"),  # node feature discovery
    GpuNodeLabel("feature.node.kubernetes.io/pci-0302_10de.present", "nvidia.com"),
    GpuNodeLabel("amd.com/gpu.family", "amd.com"),  # AMD's node labeller
    GpuNodeLabel("feature.node.kubernetes.io/amd-gpu", "amd.com"),  # AMD's GPU operator
    GpuNodeLabel("intel.feature.node.kubernetes.io/gpu", "gpu.intel.com"),  # Intel's device plugins
)
"""The well-known labels of GPU nodes. SDSERVICE_GPU_NODE_LABELS adds further labels."""
_NOT_ANY_MORE = ["false", "0"]
"""Values of a label that mean that the node has no GPU. The NVIDIA GPU operator sets `false` instead of removing a label."""


def head_placement(spec: Spec) -> Json:
    """Placement of the head. The head prefers nodes without GPUs, because it would prevent the removal of an idle GPU node."""
    head = spec.head
    return {
        key: value
        for key, value in {
            "nodeSelector": head.node_selector,
            "tolerations": tolerations(head.tolerations),
            "affinity": _off_gpu_nodes(affinity(head.affinity)),
            "priorityClassName": head.priority_class_name,
        }.items()
        if value
    }


def worker_placement(spec: Spec, group: WorkerGroup) -> Json:
    """Placement of a worker pod. A worker always tolerates the taint of the GPU resource."""
    tolerated = tolerations(group.tolerations)
    gpu_taint = {"key": spec.gpu_resource_name, "operator": "Exists", "effect": "NoSchedule"}
    if spec.gpus_per_replica and gpu_taint not in tolerated:
        tolerated.append(gpu_taint)
    return {
        key: value
        for key, value in {
            "nodeSelector": group.node_selector,
            "tolerations": tolerated,
            "affinity": _with_capacity(affinity(group.affinity), group.capacity_type),
            "runtimeClassName": group.runtime_class_name,
            "priorityClassName": group.priority_class_name,
        }.items()
        if value
    }


def selects_nodes(placement: Json) -> bool:
    """Whether a placement selects nodes. The capacity type does not count, because it does not describe the hardware."""
    capacity = {key for labels in _CAPACITY_LABELS.values() for key, _ in labels}
    required = (placement.get("affinity", {}).get("nodeAffinity") or {}).get(REQUIRED) or {}
    return bool(placement.get("nodeSelector")) or any(
        term.get("matchFields")
        or any(each["key"] not in capacity for each in term.get("matchExpressions") or [])
        for term in required.get("nodeSelectorTerms") or []
    )


def on_gpu_nodes(placement: Json, resource: str, more: Sequence[str] = ()) -> Json:
    """The same placement, restricted to nodes with a label of GPU nodes.

    Args:
        placement: nodeSelector, affinity and tolerations, as in a Pod.
        resource: name of the resource that the nodes must have, such as nvidia.com/gpu.
        more: additional labels of GPU nodes, as `key` or `key=value`.
    """
    vendor = resource.partition("/")[0]
    known = [each.key for each in GPU_NODE_LABELS if each.vendor in {"", vendor}]
    alternatives = [_carries(label) for label in dict.fromkeys((*known, *more))]
    return {**placement, "affinity": _crossed(placement.get("affinity", {}), alternatives)}


def _carries(label: str) -> list[Json]:
    key, has_value, value = label.partition("=")
    if has_value:
        return [{"key": key, "operator": "In", "values": [value]}]
    return [{"key": key, "operator": "Exists"}, {"key": key, "operator": "NotIn", "values": _NOT_ANY_MORE}]


def tolerations(specified: tuple[Toleration, ...]) -> list[Json]:
    """Tolerations, as in a Pod."""
    return [toleration.model_dump(by_alias=True, exclude_none=True) for toleration in specified]


def affinity(specified: Affinity | None) -> Json:
    """Affinity, as in a Pod; empty without affinity."""
    return {} if specified is None else specified.model_dump(mode="json", by_alias=True, exclude_none=True)


def _off_gpu_nodes(specified: Json) -> Json:
    preference = {
        "weight": 100,
        "preference": {
            "matchExpressions": [
                {"key": label.key, "operator": "DoesNotExist"}
                for label in GPU_NODE_LABELS
                if label.head_avoids
            ]
        },
    }
    node_affinity = specified.get("nodeAffinity", {})
    preferences = [*node_affinity.get(_PREFERRED, []), preference]
    return {**specified, "nodeAffinity": {**node_affinity, _PREFERRED: preferences}}


def _with_capacity(specified: Json, capacity_type: str | None) -> Json:
    """Combine the user's node terms with the labels of the capacity type.

    Terms of a node selector are ORed, and the expressions in a term are ANDed. So "one of the user's terms, and one of
    the two labels" needs a term for every pair.
    """
    if capacity_type is None:
        return specified
    labels = _CAPACITY_LABELS[capacity_type]
    return _crossed(specified, [[{"key": key, "operator": "In", "values": [value]}] for key, value in labels])


def _crossed(specified: Json, alternatives: Sequence[list[Json]]) -> Json:
    """The affinity with a node term for every pair of a present term and a list of expressions."""
    node_affinity = dict(specified.get("nodeAffinity", {}))
    required = node_affinity.get(REQUIRED) or {}
    terms = required.get("nodeSelectorTerms") or [{}]
    node_affinity[REQUIRED] = {
        **required,
        "nodeSelectorTerms": [
            {**term, "matchExpressions": [*term.get("matchExpressions", []), *expressions]}
            for term, expressions in product(terms, alternatives)
        ],
    }
    return {**specified, "nodeAffinity": node_affinity}
