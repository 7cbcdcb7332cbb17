# SPDX-License-Identifier: Apache-2.0
"""What belongs to a resource and tells of itself: watched by handlers, listed by resync, found by its labels."""

from collections.abc import Mapping
from dataclasses import dataclass

from sd_operator import naming
from sd_operator.cluster import DAEMON_SET, DEPLOYMENT, NETWORK_POLICY, POD, RAY_CLUSTER, RAY_SERVICE, Kind


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

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether that selector picks an object of these labels."""
        return all(key in labels and value in {"", labels[key]} for key, value in self.labels.items())


_NAMED = {naming.NAME_LABEL: ""}
_MANAGED = {**_NAMED, naming.MANAGED_BY_LABEL: ""}
_OF_RAY = {**_NAMED, naming.RAY_POD_LABEL: ""}

CHILDREN = (
    Watched(RAY_SERVICE, _NAMED),
    Watched(RAY_CLUSTER, _NAMED),
    Watched(DAEMON_SET, _NAMED),
    Watched(DEPLOYMENT, _MANAGED),
    Watched(NETWORK_POLICY, _MANAGED),
    Watched(POD, _OF_RAY),
)
