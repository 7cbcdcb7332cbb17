# SPDX-License-Identifier: Apache-2.0
"""What happens to the running cluster when its pods must change."""

from typing import Literal

from pydantic import Field

from sd_operator.api.base import Model, Rule
from sd_operator.api.fields import ObjectName


class Incremental(Model):
    """Moving traffic to the new cluster step by step, through a Gateway."""

    rules = (
        Rule(
            cel="self.stepSizePercent <= self.maxSurgePercent",
            holds=lambda i: i.step_size_percent <= i.max_surge_percent,
            message="stepSizePercent must not be above maxSurgePercent",
            field=".stepSizePercent",
        ),
    )

    gateway_class_name: ObjectName = Field(description="GatewayClass that carries the traffic.")
    step_size_percent: int = Field(
        default=25, ge=1, le=100, description="Traffic moved per step, in percent."
    )
    interval_seconds: int = Field(default=30, ge=1, le=3600, description="Seconds between two steps.")
    max_surge_percent: int = Field(
        default=100, ge=1, le=100, description="Capacity of the new cluster beside the old one, in percent."
    )


class Upgrade(Model):
    """What happens to the running cluster when its pods must change."""

    rules = (
        Rule(
            cel="(self.strategy == 'Incremental') == has(self.incremental)",
            holds=lambda u: (u.strategy == "Incremental") == (u.incremental is not None),
            message="incremental and strategy: Incremental belong together: set both, or neither",
            field=".incremental",
        ),
    )

    strategy: Literal["NewCluster", "Incremental", "InPlaceOnly"] = Field(
        default="NewCluster",
        description=(
            "NewCluster: a second cluster comes up and takes over, which needs twice the GPUs for a while."
            " Incremental: the same in steps, through a Gateway. InPlaceOnly: pods never change; only the"
            " serving configuration does."
        ),
    )
    incremental: Incremental | None = Field(default=None, description="Settings of strategy Incremental.")
    surge_workers: int = Field(
        default=1,
        ge=0,
        le=100,
        description=(
            "Workers beyond those that replicas.max needs, so that a new replica starts before an old one stops;"
            " at least 1 percent of replicas.max. 0 adds none: an old replica then stops first, unless maxReplicas of"
            " the groups leaves room."
        ),
    )
    surge_timeout_seconds: int = Field(
        default=600,
        ge=10,
        le=86400,
        description=(
            "Seconds that a replacement waits for a node for those workers. After that, replicas are replaced where"
            " they are: an old one stops before its successor starts."
        ),
    )
