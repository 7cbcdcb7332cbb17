# SPDX-License-Identifier: Apache-2.0
"""What belongs to a resource and tells of itself: watched by handlers, listed by resync, found by its labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sd_operator import naming
from sd_operator.cluster import DAEMON_SET, DEPLOYMENT, NETWORK_POLICY, POD, RAY_CLUSTER, RAY_SERVICE, Kind
from sd_operator.naming import Key
from sd_operator.ownership import users


@dataclass(frozen=True)
class Watched:
    """A kind of which many objects are not ours.

    Attributes:
        kind: which.
        labels: what those that are ours carry; an empty value: any.
    """

    kind: Kind
    labels: Mapping[str, str]

    @property
    def selector(self) -> str:
        """The label selector by which the API server leaves out the others."""
        return ",".join(f"{key}={value}" if value else key for key, value in self.labels.items())


_NAMED = {naming.NAME_LABEL: ""}
_MANAGED = {**_NAMED, naming.MANAGED_BY_LABEL: ""}
_OF_RAY = {**_NAMED, naming.RAY_POD_LABEL: ""}
_OURS = {naming.MANAGED_BY_LABEL: naming.labels("")[naming.MANAGED_BY_LABEL]}
"""What services share carries no name of one of them."""

CHILDREN = (
    Watched(RAY_SERVICE, _NAMED),
    Watched(RAY_CLUSTER, _NAMED),
    Watched(DAEMON_SET, _OURS),
    Watched(DEPLOYMENT, _MANAGED),
    Watched(NETWORK_POLICY, _MANAGED),
    Watched(POD, _OF_RAY),
)


def keys(metadata: Mapping[str, Any]) -> list[Key]:
    """Whose an object is, by its metadata: the services that share it, or the one that its label names."""
    namespace, labels = metadata.get("namespace") or "", metadata.get("labels") or {}
    if is_shared(metadata):
        return [Key(namespace, each["name"]) for each in users(metadata)]
    return [Key(namespace, labels[naming.NAME_LABEL])] if naming.NAME_LABEL in labels else []


def is_shared(metadata: Mapping[str, Any]) -> bool:
    """Whether services of a namespace share the object."""
    return naming.PRELOAD_LABEL in (metadata.get("labels") or {}) and bool(users(metadata))
