# SPDX-License-Identifier: Apache-2.0
"""Affinity as a Pod has it. Node affinity is typed, for the capacity type is crossed with it; the rest passes through."""

from typing import Annotated, Literal

from pydantic import Field

from sd_operator.api.base import Model
from sd_operator.api.fields import FreeObject, LabelKey

_Value = Annotated[str, Field(max_length=63)]


class NodeSelectorRequirement(Model):
    """One demand on a node's label or field."""

    key: LabelKey = Field(description="Label of a node, or a field of it in matchFields.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="How the node's value is compared with values."
    )
    values: Annotated[tuple[_Value, ...], Field(max_length=64)] | None = Field(
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

    weight: int = Field(ge=1, le=100, description="Weight among the wishes.")
    preference: NodeSelectorTerm = Field(description="The wish.")


class NodeAffinity(Model):
    """Which nodes a pod must or should run on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None, description="What a node must meet."
    )
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PreferredSchedulingTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="What a node should meet.")


class Affinity(Model):
    """Scheduling preferences, as in a Pod."""

    node_affinity: NodeAffinity | None = Field(default=None, description="Node affinity, as in a Pod.")
    pod_affinity: FreeObject | None = Field(default=None, description="Pod affinity, as in a Pod.")
    pod_anti_affinity: FreeObject | None = Field(default=None, description="Pod anti-affinity, as in a Pod.")
