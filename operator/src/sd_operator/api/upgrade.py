# SPDX-License-Identifier: Apache-2.0
"""How the running cluster is replaced when its pods must change."""

from typing import Literal

from pydantic import Field

from sd_operator.api.base import Model, Rule
from sd_operator.api.fields import ObjectName


class Incremental(Model):
    """Settings of strategy Incremental, which moves traffic to the new cluster in steps, through a Gateway."""

    rules = (
        Rule(
            cel="self.stepSizePercent <= self.maxSurgePercent",
            holds=lambda i: i.step_size_percent <= i.max_surge_percent,
            message="stepSizePercent must not exceed maxSurgePercent: lower stepSizePercent or raise maxSurgePercent",
            field=".stepSizePercent",
        ),
    )

    gateway_class_name: ObjectName = Field(description="GatewayClass that carries the traffic.")
    step_size_percent: int = Field(
        default=25, ge=1, le=100, description="Traffic that moves in each step, in percent."
    )
    interval_seconds: int = Field(default=30, ge=1, le=3600, description="Seconds between two steps.")
    max_surge_percent: int = Field(
        default=100,
        ge=1,
        le=100,
        description="Maximum capacity of the new cluster while the old cluster runs, in percent.",
    )


class Upgrade(Model):
    """How the running cluster is replaced when its pods must change."""

    rules = (
        Rule(
            cel="(self.strategy == 'Incremental') == has(self.incremental)",
            holds=lambda u: (u.strategy == "Incremental") == (u.incremental is not None),
            message="strategy: Incremental and the field incremental belong together: set both, or neither",
            field=".incremental",
        ),
    )

    strategy: Literal["NewCluster", "Incremental", "InPlaceOnly"] = Field(
        default="NewCluster",
        description=(
            "NewCluster: a second cluster starts and takes over. For a while this needs twice the GPUs."
            " Incremental: the same, but traffic moves in steps through a Gateway. InPlaceOnly: pods never change; only the"
            " serving configuration changes."
        ),
    )
    incremental: Incremental | None = Field(default=None, description="Settings of strategy Incremental.")
    surge_workers: int = Field(
        default=1,
        ge=0,
        le=100,
        description=(
            "Additional workers beyond replicas.max, so that a new replica starts before an old one stops; at least 1 percent"
            " of replicas.max. With 0 an old replica stops first, unless maxReplicas of the groups leaves capacity."
        ),
    )
    surge_timeout_seconds: int = Field(
        default=600,
        ge=10,
        le=86400,
        description=(
            "Seconds that a replacement of replicas waits for a node for the additional workers. After that, each old replica"
            " stops before its successor starts."
        ),
    )
