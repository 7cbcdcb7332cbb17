# SPDX-License-Identifier: Apache-2.0
"""`spec.head`: resources and placement of the Ray head, and the store of Ray's cluster state."""

from typing import Annotated, Literal

from pydantic import Field

from sd_operator.api.affinity import Affinity
from sd_operator.api.base import Model, Rule
from sd_operator.api.cache import Size
from sd_operator.api.fields import Labels, ObjectName
from sd_operator.api.model import SecretKeyRef
from sd_operator.api.placement import Resources, Tolerations


class Redis(Model):
    """An external Redis that stores Ray's cluster state, so that replicas continue to run when the head is lost."""

    address: Annotated[str, Field(min_length=1, max_length=253)] = Field(
        description="Address of Redis: host:port, redis://host:port or rediss://host:port."
    )
    password_secret_ref: SecretKeyRef | None = Field(
        default=None, description="Secret with the Redis password."
    )


class StateVolume(Model):
    """A volume of the head that stores Ray's cluster state. Each cluster has its own volume, deleted with the cluster."""

    size: Size = Field(default="1Gi", description="Size of the volume. The state takes a few megabytes.")
    storage_class_name: ObjectName | None = Field(
        default=None, description="StorageClass of the volume. If unset, the default of the cluster."
    )


class FaultTolerance(Model):
    """The store of Ray's cluster state outside the head, so that replicas continue to serve while the head is replaced."""

    rules = (
        Rule(
            cel="(self.store == 'redis') == has(self.redis)",
            holds=lambda f: (f.store == "redis") == (f.redis is not None),
            message="store: redis and the field redis belong together: set both, or neither",
            field=".redis",
        ),
        Rule(
            cel="self.store == 'volume' || !has(self.volume)",
            holds=lambda f: f.store == "volume" or f.volume is None,
            message="the field volume needs store: volume: set that store, or remove volume",
            field=".volume",
        ),
    )

    store: Literal["redis", "volume"] = Field(
        description=(
            "redis: an external Redis. volume: a volume of the head. It needs KubeRay's feature gate"
            " GCSFaultToleranceEmbeddedStorage (alpha in KubeRay 1.7)."
        )
    )
    redis: Redis | None = Field(default=None, description="The Redis for `store: redis`.")
    volume: StateVolume | None = Field(
        default=None,
        description="The volume for `store: volume`. If unset: 1Gi of the default StorageClass.",
    )


class Head(Model):
    """The Ray head. It controls the cluster, routes requests and needs no GPU."""

    rules = (
        Rule(
            cel="!has(self.redis) || !has(self.faultTolerance)",
            holds=lambda h: h.redis is None or h.fault_tolerance is None,
            message="redis is the short form of faultTolerance with store: redis: remove one of the two",
            field=".redis",
        ),
    )

    resources: Resources = Field(
        default=Resources(cpu="2", memory="4Gi"), description="CPU and memory of the head pod."
    )
    node_selector: Labels = Field(default={}, description="Labels that a node must have.")
    tolerations: Tolerations = Field(default=(), description="Taints that the head tolerates.")
    affinity: Affinity | None = Field(default=None, description="Scheduling preferences, as in a Pod.")
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the head pod.")
    redis: Redis | None = Field(
        default=None, description="Short form of faultTolerance with `store: redis` and this Redis."
    )
    fault_tolerance: FaultTolerance | None = Field(
        default=None,
        description="Where Ray stores its cluster state. If unset: in the head; then all replicas restart if the head is lost.",
    )

    def store(self) -> Redis | StateVolume | None:
        """Where Ray's cluster state is stored; None: in the head itself."""
        if self.fault_tolerance is None:
            return self.redis
        if self.fault_tolerance.store == "redis":
            return self.fault_tolerance.redis
        return self.fault_tolerance.volume or StateVolume()
