# SPDX-License-Identifier: Apache-2.0
"""`spec.model.cache`: where downloaded weights and compiled code are kept."""

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
    message="persistentVolumeClaim, size and nodeDirectory exclude each other; keep one",
)
_CLASS_OF_A_VOLUME = Rule(
    cel="!has(self.storageClassName) || has(self.size)",
    holds=lambda c: c.storage_class_name is None or c.size is not None,
    message="storageClassName is of the volume that size asks for; set size, or remove it",
    field=".storageClassName",
)


class CacheClaim(Model):
    """A PersistentVolumeClaim of the namespace that all workers share."""

    claim_name: ObjectName = Field(description="Its name; it must allow every worker's node (ReadWriteMany).")


class NodeDirectory(Model):
    """A directory of each node, prepared by the platform team; which one is a setting of the operator."""


class ModelCache(Model):
    """Where downloaded weights and compiled code are kept; by default with each worker pod, and gone with it.

    One replica downloads, others that share the cache wait for it; what is whole is used without asking the hub.
    """

    rules = (_ONE_PLACE, _CLASS_OF_A_VOLUME)

    persistent_volume_claim: CacheClaim | None = Field(
        default=None, description="A claim that all workers share: one download for all, kept."
    )
    size: Size | None = Field(
        default=None,
        description="A volume of this size for each worker pod, in place of its node's own disk.",
    )
    storage_class_name: ObjectName | None = Field(
        default=None,
        description="StorageClass of the volume that size asks for; absent: the cluster's default.",
    )
    node_directory: NodeDirectory | None = Field(
        default=None,
        description=(
            "A directory of the node, shared by all workers that run there and kept: one download per node. Only"
            " where the operator's settings name the directory."
        ),
    )
