# SPDX-License-Identifier: Apache-2.0
"""Affinity as in a Pod. Every field is typed and bounded, so that `kubectl apply` refuses a misspelt field."""

from typing import Annotated, Literal

from pydantic import Field

from sd_operator.api.base import Model
from sd_operator.api.fields import LabelKey, Labels, LabelValue

_Values = Annotated[tuple[LabelValue, ...], Field(max_length=64)]
_Keys = Annotated[tuple[LabelKey, ...], Field(max_length=16)]
_Weight = Annotated[int, Field(ge=1, le=100)]


class NodeSelectorRequirement(Model):
    """One requirement on a label or field of a node."""

    key: LabelKey = Field(description="Label of a node; in matchFields, a field of the node.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="How the value on the node is compared with `values`."
    )
    values: _Values | None = Field(
        default=None, description="Values for In and NotIn; one whole number for Gt and Lt."
    )


Requirements = Annotated[tuple[NodeSelectorRequirement, ...], Field(max_length=16)]


class NodeSelectorTerm(Model):
    """Requirements on a node. The node must meet all of them."""

    match_expressions: Requirements | None = Field(default=None, description="Requirements on labels.")
    match_fields: Requirements | None = Field(default=None, description="Requirements on fields.")


class NodeSelector(Model):
    """A list of terms. A node must meet at least one of them."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=16)] = Field(
        description="List of terms. A node must meet at least one of them."
    )


class PreferredSchedulingTerm(Model):
    """A preference for nodes, with its weight."""

    weight: _Weight = Field(description="Weight of this preference, 1 to 100.")
    preference: NodeSelectorTerm = Field(description="Requirements on the preferred nodes.")


class NodeAffinity(Model):
    """The nodes that a pod must or should run on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None, description="Requirements that a node must meet."
    )
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PreferredSchedulingTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="Preferences that the scheduler tries to meet.")


class LabelSelectorRequirement(Model):
    """One requirement on a label of a pod or namespace."""

    key: LabelKey = Field(description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How the value of the label is compared with `values`."
    )
    values: _Values | None = Field(default=None, description="Values for In and NotIn.")


class LabelSelector(Model):
    """Requirements on labels, all of which must be met. An empty selector matches everything."""

    match_labels: Labels | None = Field(default=None, description="Labels and their required values.")
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=16)] | None = Field(
        default=None, description="Requirements on labels."
    )


class PodAffinityTerm(Model):
    """A set of pods, and the node label that defines what "near" these pods means."""

    label_selector: LabelSelector | None = Field(
        default=None, description="Labels of the pods. If unset, no pod matches."
    )
    topology_key: LabelKey = Field(
        description="Label of nodes. Nodes with the same value are in the same place, such as a zone."
    )
    namespaces: Annotated[tuple[LabelValue, ...], Field(max_length=16)] | None = Field(
        default=None,
        description="Namespaces of the pods. If neither this nor namespaceSelector is set: the namespace of the service.",
    )
    namespace_selector: LabelSelector | None = Field(
        default=None,
        description="Labels of the namespaces of the pods, in addition to `namespaces`.",
    )
    match_label_keys: _Keys | None = Field(
        default=None, description="Keys of labels whose values must equal those of the new pod."
    )
    mismatch_label_keys: _Keys | None = Field(
        default=None, description="Keys of labels whose values must differ from those of the new pod."
    )


class WeightedPodAffinityTerm(Model):
    """A preference to be near to or far from pods, with its weight."""

    weight: _Weight = Field(description="Weight of this preference, 1 to 100.")
    pod_affinity_term: PodAffinityTerm = Field(description="The pods.")


class PodAffinity(Model):
    """The pods that a pod must or should be near to, or far from."""

    required_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PodAffinityTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="Terms that must be met.")
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[WeightedPodAffinityTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="Preferences that the scheduler tries to meet.")


class Affinity(Model):
    """Scheduling preferences, as in a Pod."""

    node_affinity: NodeAffinity | None = Field(default=None, description="Node affinity, as in a Pod.")
    pod_affinity: PodAffinity | None = Field(default=None, description="Pod affinity, as in a Pod.")
    pod_anti_affinity: PodAffinity | None = Field(default=None, description="Pod anti-affinity, as in a Pod.")
