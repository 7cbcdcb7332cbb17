# SPDX-License-Identifier: Apache-2.0
"""`spec.model.cache`: the volume for downloaded weights and compiled code."""

from typing import Annotated

from pydantic import Field

from sd_operator.api.base import Model, Rule
from sd_operator.api.fields import ObjectName, Text

Size = Annotated[
    str,
    Text(r"^[1-9][0-9]*(Gi|Ti)$", "must be a whole number of Gi or Ti, such as 50Gi", max_length=8),
]

_ONE_PLACE = Rule(
    cel=(
        "[has(self.persistentVolumeClaim), has(self.size), has(self.nodeDirectory)].filter(x, x).size() <= 1"
    ),
    holds=lambda c: (
        sum(each is not None for each in (c.persistent_volume_claim, c.size, c.node_directory)) <= 1
    ),
    message="only one of persistentVolumeClaim, size and nodeDirectory may be set: remove the others",
)
_CLASS_OF_A_VOLUME = Rule(
    cel="!has(self.storageClassName) || has(self.size)",
    holds=lambda c: c.storage_class_name is None or c.size is not None,
    message="storageClassName applies only to the volume that size creates: set size, or remove storageClassName",
    field=".storageClassName",
)


class CacheClaim(Model):
    """A PersistentVolumeClaim in the namespace of the service, shared by all workers."""

    claim_name: ObjectName = Field(
        description="Name of the claim. Workers on several nodes need access mode ReadWriteMany."
    )


class NodeDirectory(Model):
    """A directory on each node, prepared by the platform team. A setting of the operator names the directory."""


class ModelCache(Model):
    """The volume for downloaded weights and compiled code. By default it is deleted with each worker pod.

    One replica downloads a model, and other replicas with the same cache wait for it. A replica uses a complete
    download without a request to the hub.
    """

    rules = (_ONE_PLACE, _CLASS_OF_A_VOLUME)

    persistent_volume_claim: CacheClaim | None = Field(
        default=None,
        description="A claim that all workers share. The weights are downloaded once and kept.",
    )
    size: Size | None = Field(
        default=None,
        description="Size of a volume for each worker pod, used instead of the disk of the node.",
    )
    storage_class_name: ObjectName | None = Field(
        default=None,
        description="StorageClass of the volume that `size` creates. If unset, the default of the cluster.",
    )
    node_directory: NodeDirectory | None = Field(
        default=None,
        description=(
            "A directory of the node, shared by all workers on that node. The weights are downloaded once per node and kept."
            " The settings of the operator must name the directory."
        ),
    )
