# SPDX-License-Identifier: Apache-2.0
"""The Ray head: what it gets, where it runs, and where it keeps the cluster's state."""

from typing import Annotated, Literal

from pydantic import Field

from sd_operator.api.affinity import Affinity
from sd_operator.api.base import Model, Rule
from sd_operator.api.cache import Size
from sd_operator.api.fields import Labels, ObjectName
from sd_operator.api.model import SecretKeyRef
from sd_operator.api.placement import Resources, Tolerations


class Redis(Model):
    """An external Redis that keeps Ray's cluster state, so that replicas outlive a lost head."""

    address: Annotated[str, Field(min_length=1, max_length=253)] = Field(
        description="Address as host:port, or redis://host:port or rediss://host:port."
    )
    password_secret_ref: SecretKeyRef | None = Field(
        default=None, description="Secret with the Redis password."
    )


class StateVolume(Model):
    """A volume of the head that keeps Ray's cluster state; each cluster has its own, deleted with it."""

    size: Size = Field(default="1Gi", description="Size of the volume; the state is some megabytes.")
    storage_class_name: ObjectName | None = Field(
        default=None, description="StorageClass of the volume; absent: the cluster's default."
    )


class FaultTolerance(Model):
    """Where the head keeps Ray's cluster state, so that replicas serve on while the head is replaced."""

    rules = (
        Rule(
            cel="(self.store == 'redis') == has(self.redis)",
            holds=lambda f: (f.store == "redis") == (f.redis is not None),
            message="redis and store: redis belong together: set both, or neither",
            field=".redis",
        ),
        Rule(
            cel="self.store == 'volume' || !has(self.volume)",
            holds=lambda f: f.store == "volume" or f.volume is None,
            message="volume is for store: volume; set that store, or remove volume",
            field=".volume",
        ),
    )

    store: Literal["redis", "volume"] = Field(
        description=(
            "redis: an external Redis. volume: a volume of the head, which needs KubeRay's feature gate"
            " GCSFaultToleranceEmbeddedStorage (alpha in KubeRay 1.7)."
        )
    )
    redis: Redis | None = Field(default=None, description="The Redis of store redis.")
    volume: StateVolume | None = Field(
        default=None, description="The volume of store volume; absent: 1Gi of the default StorageClass."
    )


class Head(Model):
    """The Ray head: controls, routes, and needs no GPU."""

    rules = (
        Rule(
            cel="!has(self.redis) || !has(self.faultTolerance)",
            holds=lambda h: h.redis is None or h.fault_tolerance is None,
            message="redis is short for faultTolerance with store redis; keep one of the two",
            field=".redis",
        ),
    )

    resources: Resources = Field(
        default=Resources(cpu="2", memory="4Gi"), description="CPU and memory of the head pod."
    )
    node_selector: Labels = Field(default={}, description="Labels a node must have.")
    tolerations: Tolerations = Field(default=(), description="Taints the head accepts.")
    affinity: Affinity | None = Field(default=None, description="Scheduling preferences, as in a Pod.")
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the head pod.")
    redis: Redis | None = Field(
        default=None, description="Short for faultTolerance with store redis and this Redis."
    )
    fault_tolerance: FaultTolerance | None = Field(
        default=None,
        description="Where Ray's cluster state is kept; absent: with the head, and a lost head restarts the replicas.",
    )

    def store(self) -> Redis | StateVolume | None:
        """Where Ray's cluster state is kept; None: with the head."""
        if self.fault_tolerance is None:
            return self.redis
        if self.fault_tolerance.store == "redis":
            return self.fault_tolerance.redis
        return self.fault_tolerance.volume or StateVolume()
