# SPDX-License-Identifier: Apache-2.0
"""Affinity as a Pod has it, every part of it typed and bounded: what is misspelt is told when it is applied."""

from typing import Annotated, Literal

from pydantic import Field

from sd_operator.api.base import Model
from sd_operator.api.fields import LabelKey, Labels, LabelValue

_Values = Annotated[tuple[LabelValue, ...], Field(max_length=64)]
_Keys = Annotated[tuple[LabelKey, ...], Field(max_length=16)]
_Weight = Annotated[int, Field(ge=1, le=100)]


class NodeSelectorRequirement(Model):
    """One demand on a node's label or field."""

    key: LabelKey = Field(description="Label of a node, or a field of it in matchFields.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="How the node's value is compared with values."
    )
    values: _Values | None = Field(
        default=None, description="Values of In and NotIn; one whole number of Gt and Lt."
    )


Requirements = Annotated[tuple[NodeSelectorRequirement, ...], Field(max_length=16)]


class NodeSelectorTerm(Model):
    """Demands on a node, all of which it must meet."""

    match_expressions: Requirements | None = Field(default=None, description="Demands on labels.")
    match_fields: Requirements | None = Field(default=None, description="Demands on fields.")


class NodeSelector(Model):
    """Terms of which a node must meet one."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=16)] = Field(
        description="Terms; one that is met suffices."
    )


class PreferredSchedulingTerm(Model):
    """A wish, and how much it weighs."""

    weight: _Weight = Field(description="Weight among the wishes.")
    preference: NodeSelectorTerm = Field(description="The wish.")


class NodeAffinity(Model):
    """Which nodes a pod must or should run on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None, description="What a node must meet."
    )
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PreferredSchedulingTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="What a node should meet.")


class LabelSelectorRequirement(Model):
    """One demand on a label of a pod or namespace."""

    key: LabelKey = Field(description="Label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How the label's value is compared with values."
    )
    values: _Values | None = Field(default=None, description="Values of In and NotIn.")


class LabelSelector(Model):
    """Demands on labels, all of which must be met; an empty selector takes everything."""

    match_labels: Labels | None = Field(default=None, description="Labels and their values.")
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=16)] | None = Field(
        default=None, description="Demands on labels."
    )


class PodAffinityTerm(Model):
    """Pods, and what a node must share with theirs to be near to them."""

    label_selector: LabelSelector | None = Field(default=None, description="Which pods; absent: none.")
    topology_key: LabelKey = Field(
        description="Label of nodes; those of the same value are near to each other."
    )
    namespaces: Annotated[tuple[LabelValue, ...], Field(max_length=16)] | None = Field(
        default=None,
        description="Namespaces of the pods; absent, and without namespaceSelector: that of the service.",
    )
    namespace_selector: LabelSelector | None = Field(
        default=None, description="Namespaces of the pods by their labels, beside those in namespaces."
    )
    match_label_keys: _Keys | None = Field(
        default=None, description="Labels whose values the pods must have in common with the new one."
    )
    mismatch_label_keys: _Keys | None = Field(
        default=None, description="Labels whose values must differ from those of the new pod."
    )


class WeightedPodAffinityTerm(Model):
    """A wish, and how much it weighs."""

    weight: _Weight = Field(description="Weight among the wishes.")
    pod_affinity_term: PodAffinityTerm = Field(description="The wish.")


class PodAffinity(Model):
    """Which pods a pod must or should be near to, or far from."""

    required_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PodAffinityTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="What a node must meet.")
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[WeightedPodAffinityTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="What a node should meet.")


class Affinity(Model):
    """Scheduling preferences, as in a Pod."""

    node_affinity: NodeAffinity | None = Field(default=None, description="Node affinity, as in a Pod.")
    pod_affinity: PodAffinity | None = Field(default=None, description="Pod affinity, as in a Pod.")
    pod_anti_affinity: PodAffinity | None = Field(default=None, description="Pod anti-affinity, as in a Pod.")
