# SPDX-License-Identifier: Apache-2.0
"""The kinds of children that handlers watch and resync lists, and the services to which their objects belong."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sd_operator import naming
from sd_operator.errors import Refused
from sd_operator.kube import (
    DAEMON_SET,
    DEPLOYMENT,
    GATEWAY,
    NETWORK_POLICY,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
    Cluster,
    Kind,
)
from sd_operator.kube.ownership import users
from sd_operator.naming import Key

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watched:
    """A kind to watch, and the labels of the objects that matter to the operator.

    Attributes:
        kind: the kind.
        labels: labels of these objects; an empty value matches any value. It is empty for objects that KubeRay creates without
            labels: their owner has the name of the resource.
    """

    kind: Kind
    labels: Mapping[str, str]

    @property
    def selector(self) -> str:
        """The label selector that excludes all other objects."""
        return ",".join(f"{key}={value}" if value else key for key, value in self.labels.items())

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether the selector matches an object with these labels."""
        return all(key in labels and value in {"", labels[key]} for key, value in self.labels.items())


_NAMED = {naming.NAME_LABEL: ""}
_MANAGED = {**_NAMED, naming.MANAGED_BY_LABEL: ""}
_OF_RAY = {**_NAMED, naming.RAY_POD_LABEL: ""}
_OURS = {naming.MANAGED_BY_LABEL: naming.labels("")[naming.MANAGED_BY_LABEL]}
"""Shared objects have no label with the name of a service."""

CHILDREN = (
    Watched(RAY_SERVICE, _NAMED),
    Watched(RAY_CLUSTER, _NAMED),
    Watched(DAEMON_SET, _OURS),
    Watched(DEPLOYMENT, _MANAGED),
    Watched(NETWORK_POLICY, _MANAGED),
    Watched(POD, _OF_RAY),
)

SHARED = Watched(DAEMON_SET, {**_OURS, naming.PRELOAD_LABEL: ""})
"""The children that services share."""

OPTIONAL = (Watched(GATEWAY, {}),)
"""Kinds that a cluster may lack or that the operator may not read; only an address in the status depends on them."""


def keys(metadata: Mapping[str, Any]) -> list[Key]:
    """The services to which an object belongs: its users if it is shared, else the one that its label or owner names."""
    namespace, labels = metadata.get("namespace") or "", metadata.get("labels") or {}
    owners = metadata.get("ownerReferences") or []
    if is_shared(metadata):
        return [Key(namespace, each["name"]) for each in users(metadata)]
    if named := labels.get(naming.NAME_LABEL):
        return [Key(namespace, named)]
    made_for = (each for each in owners if each.get("controller") and each.get("kind") == RAY_SERVICE.name)
    return [Key(namespace, each["name"]) for each in made_for]


def is_shared(metadata: Mapping[str, Any]) -> bool:
    """Whether services of a namespace share the object."""
    return naming.PRELOAD_LABEL in (metadata.get("labels") or {}) and bool(users(metadata))


async def watchable(cluster: Cluster, namespaces: tuple[str, ...]) -> tuple[Watched, ...]:
    """The kinds to watch: all required ones, and the optional ones that can be listed in every namespace.

    Args:
        cluster: the API server.
        namespaces: the served ones; none: all of them.

    Raises:
        ClusterUnavailable: the API server is unavailable.
    """
    found = list(CHILDREN)
    for each in OPTIONAL:
        try:
            for namespace in namespaces or (None,):
                async for _ in cluster.metadata(each.kind, namespace):
                    break
        except Refused as error:
            logger.info("the operator does not watch %s: %s", each.kind.name, error)
        else:
            found.append(each)
    return tuple(found)
