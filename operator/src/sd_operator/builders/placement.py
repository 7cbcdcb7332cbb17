# SPDX-License-Identifier: Apache-2.0
"""Node selectors, tolerations and affinity of a pod, in the words of the Pod API."""

from itertools import product
from typing import Any

from sd_operator.api import Spec, Toleration, WorkerGroup
from sd_operator.api.affinity import Affinity

Json = dict[str, Any]

# Karpenter and EKS managed node groups name the same thing differently; a node has one of the two labels.
_CAPACITY_LABELS = {
    "on-demand": (
        ("karpenter.sh/capacity-type", "on-demand"),
        ("eks.amazonaws.com/capacityType", "ON_DEMAND"),
    ),
    "spot": (("karpenter.sh/capacity-type", "spot"), ("eks.amazonaws.com/capacityType", "SPOT")),
}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
# Labels that only nodes with GPUs carry: GPU feature discovery, Karpenter on AWS, EKS Auto Mode, GKE.
_GPU_NODE_LABELS = (
    "nvidia.com/gpu.present",
    "karpenter.k8s.aws/instance-gpu-count",
    "eks.amazonaws.com/instance-gpu-count",
    "cloud.google.com/gke-accelerator",
)


def head_placement(spec: Spec) -> Json:
    """Placement of the head; it prefers nodes without GPUs, which a head would keep from being given back."""
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
    """Placement of a worker pod; the taint of the GPU resource is always accepted."""
    wanted = tolerations(group.tolerations)
    gpu_taint = {"key": spec.gpu_resource_name, "operator": "Exists", "effect": "NoSchedule"}
    if spec.gpus_per_replica and gpu_taint not in wanted:
        wanted.append(gpu_taint)
    return {
        key: value
        for key, value in {
            "nodeSelector": group.node_selector,
            "tolerations": wanted,
            "affinity": _with_capacity(affinity(group.affinity), group.capacity_type),
            "runtimeClassName": group.runtime_class_name,
            "priorityClassName": group.priority_class_name,
        }.items()
        if value
    }


def tolerations(wanted: tuple[Toleration, ...]) -> list[Json]:
    """Tolerations as a Pod has them."""
    return [toleration.model_dump(by_alias=True, exclude_none=True) for toleration in wanted]


def affinity(wanted: Affinity | None) -> Json:
    """Affinity as a Pod has it; empty when there is none."""
    return {} if wanted is None else wanted.model_dump(mode="json", by_alias=True, exclude_none=True)


def _off_gpu_nodes(wanted: Json) -> Json:
    preference = {
        "weight": 100,
        "preference": {
            "matchExpressions": [{"key": key, "operator": "DoesNotExist"} for key in _GPU_NODE_LABELS]
        },
    }
    node_affinity = wanted.get("nodeAffinity", {})
    preferences = [*node_affinity.get(_PREFERRED, []), preference]
    return {**wanted, "nodeAffinity": {**node_affinity, _PREFERRED: preferences}}


def _with_capacity(wanted: Json, capacity_type: str | None) -> Json:
    """Cross the user's node terms with the labels of the capacity type.

    Terms of a node selector are ORed and the expressions in one are ANDed, so "the user's terms and either
    label" is every pair of them.
    """
    if capacity_type is None:
        return wanted
    node_affinity = dict(wanted.get("nodeAffinity", {}))
    required = node_affinity.get(REQUIRED) or {}
    terms = required.get("nodeSelectorTerms") or [{}]
    labels = _CAPACITY_LABELS[capacity_type]
    node_affinity[REQUIRED] = {
        **required,
        "nodeSelectorTerms": [_and_label(term, *label) for term, label in product(terms, labels)],
    }
    return {**wanted, "nodeAffinity": node_affinity}


def _and_label(term: Json, key: str, value: str) -> Json:
    expression = {"key": key, "operator": "In", "values": [value]}
    return {**term, "matchExpressions": [*term.get("matchExpressions", []), expression]}
