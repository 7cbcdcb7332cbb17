# SPDX-License-Identifier: Apache-2.0
"""Live objects, read into the few facts that status is computed from (pure).

KubeRay's field names end here: https://github.com/ray-project/kuberay, ray-operator/apis/ray/v1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sd_operator import naming

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Application:
    """The Serve application as KubeRay last saw it; an unknown one has an empty status."""

    status: str = ""
    message: str = ""


@dataclass(frozen=True)
class RayServiceView:
    """What a RayService tells.

    Attributes:
        up_to_date: KubeRay has seen the latest generation.
        since: when KubeRay's Ready last flipped, UTC; the creation time before that.
        refused: KubeRay's words when it refuses the spec, else empty.
        active: name of the serving RayCluster, or empty; likewise `pending` for the one coming up.
        endpoints: pods that take requests.
    """

    up_to_date: bool
    since: str
    refused: str = ""
    active: str = ""
    pending: str = ""
    active_application: Application = field(default_factory=Application)
    pending_application: Application = field(default_factory=Application)
    endpoints: int = 0
    upgrading: bool = False
    suspending: bool = False
    suspended: bool = False

    @property
    def application(self) -> Application:
        """The application that requests reach; before the first cluster serves, the one coming up."""
        return self.active_application if self.active else self.pending_application


@dataclass(frozen=True)
class PodView:
    """A Ray pod."""

    cluster: str
    group: str
    is_head: bool
    ready: bool


@dataclass(frozen=True)
class PreloadView:
    """A preload DaemonSet, as its controller counts it."""

    nodes_matched: int
    nodes_ready: int


@dataclass(frozen=True)
class Observed:
    """Everything that was read of one resource's children."""

    ray_service: RayServiceView | None = None
    pods: tuple[PodView, ...] = ()
    preloads: tuple[PreloadView, ...] = ()


def observe(ray_service: Json | None, pods: Iterable[Json], daemon_sets: Iterable[Json]) -> Observed:
    """Read the live objects of one resource."""
    return Observed(
        ray_service=None if ray_service is None else _ray_service(ray_service),
        pods=tuple(map(_pod, pods)),
        preloads=tuple(map(_preload, daemon_sets)),
    )


def _ray_service(live: Json) -> RayServiceView:
    status = live.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    ready = conditions.get("Ready", {})
    active = status.get("activeServiceStatus") or {}
    pending = status.get("pendingServiceStatus") or {}
    return RayServiceView(
        up_to_date=status.get("observedGeneration", 0) >= live["metadata"].get("generation", 1),
        since=ready.get("lastTransitionTime") or live["metadata"].get("creationTimestamp", ""),
        refused=ready.get("message", "") if ready.get("reason") == "ValidationFailed" else "",
        active=active.get("rayClusterName", ""),
        pending=pending.get("rayClusterName", ""),
        active_application=_application(active),
        pending_application=_application(pending),
        endpoints=status.get("numServeEndpoints", 0),
        upgrading=_is_true(conditions, "UpgradeInProgress"),
        suspending=_is_true(conditions, "Suspending"),
        suspended=_is_true(conditions, "Suspended"),
    )


def _application(service_status: Json) -> Application:
    found = (service_status.get("applicationStatuses") or {}).get(naming.APPLICATION) or {}
    messages = [found.get("message", "")]
    deployments = found.get("serveDeploymentStatuses") or {}
    messages += [f"{name}: {each['message']}" for name, each in deployments.items() if each.get("message")]
    return Application(found.get("status", ""), "; ".join(filter(None, messages)))


def _pod(live: Json) -> PodView:
    labels = live["metadata"].get("labels") or {}
    conditions = {each["type"]: each for each in (live.get("status") or {}).get("conditions", [])}
    return PodView(
        cluster=labels.get("ray.io/cluster", ""),
        group=labels.get("ray.io/group", ""),
        is_head=labels.get("ray.io/node-type") == "head",
        ready=_is_true(conditions, "Ready") and "deletionTimestamp" not in live["metadata"],
    )


def _preload(live: Json) -> PreloadView:
    status = live.get("status") or {}
    seen = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 1)
    updated = min(status.get("updatedNumberScheduled", 0), status.get("numberReady", 0)) if seen else 0
    return PreloadView(nodes_matched=status.get("desiredNumberScheduled", 0), nodes_ready=updated)


def _is_true(conditions: Mapping[str, Json], name: str) -> bool:
    return bool(conditions.get(name, {}).get("status") == "True")
