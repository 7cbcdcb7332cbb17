# SPDX-License-Identifier: Apache-2.0
"""Reads the progress of an upgrade from the running RayClusters (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass

from sd_operator.builders.fingerprint import runs_other_config
from sd_operator.json_types import Json
from sd_operator.observe.outdated_pods import outdated
from sd_operator.observe.raycluster_diff import differences

_VERSION_ANNOTATION = "ray.io/kuberay-version"
OLDEST_KUBERAY = (1, 7)


@dataclass(frozen=True)
class UpgradeState:
    """The progress of an upgrade.

    Attributes:
        behind: the fields in which the active RayCluster differs from the desired config; empty if it does not.
        traffic_percent: share of the requests that the new cluster receives; None unless requests move in steps.
        kuberay: version of the KubeRay that wrote the active RayCluster, such as v1.7.0; empty if unknown.
        outdated: the pods of the active RayCluster that are older than its spec and differ from it; empty if there are none.
    """

    behind: str = ""
    traffic_percent: int | None = None
    kuberay: str = ""
    outdated: str = ""

    @property
    def kuberay_is_too_old(self) -> bool:
        """Whether this KubeRay is older than 1.7, which the operator needs; an unreadable version counts as newer."""
        parts = self.kuberay.removeprefix("v").split(".")[:2]
        return bool(self.kuberay) and all(map(str.isdigit, parts)) and tuple(map(int, parts)) < OLDEST_KUBERAY


def upgrade_state(ray_service: Json | None, active: Json | None, pods: Iterable[Json] = ()) -> UpgradeState:
    """Read the progress of an upgrade.

    Args:
        ray_service: the live RayService; None if there is none.
        active: the live RayCluster that serves; None if none does.
        pods: live pods of the service.
    """
    if ray_service is None or active is None:
        return UpgradeState()
    pending = (ray_service.get("status") or {}).get("pendingServiceStatus") or {}
    annotations = active["metadata"].get("annotations") or {}
    wanted = ray_service["spec"]["rayClusterConfig"]
    return UpgradeState(
        behind=differences(wanted, active) if runs_other_config(ray_service, active) else "",
        outdated=outdated(active, pods),
        traffic_percent=pending.get("trafficRoutedPercent"),
        kuberay=annotations.get(_VERSION_ANNOTATION, ""),
    )
