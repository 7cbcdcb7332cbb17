# SPDX-License-Identifier: Apache-2.0
"""What a pass is to write once the helpers of a service are there; deciding reads, and writes nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sd_operator import naming, status
from sd_operator.json_types import Json
from sd_operator.kube import POD, Cluster
from sd_operator.kube.ownership import is_preload
from sd_operator.observe.observer import Observer
from sd_operator.reconcile.image_pins import Pin, is_needed, pins
from sd_operator.reconcile.rollout import Rollout
from sd_operator.reconcile.rollout_gate import RolloutGate
from sd_operator.reconcile.scope import Scope
from sd_operator.reconcile.staging import in_place, removes_head, replaces_in_place, staged
from sd_operator.settings import Settings


@dataclass(frozen=True)
class Plan:
    """Decisions of a pass.

    Attributes:
        apply: the RayService to apply now, which may be a stage on the way to the desired one; None while it is on hold.
        hold: why the live RayService stays as it is; None where it does not.
        delete: children that are no longer desired, and that nothing needs.
        in_place: replicas are replaced where they are, although the spec lets new ones start first.
    """

    apply: Json | None
    hold: status.Held | None
    delete: tuple[Json, ...]
    in_place: bool = False


@dataclass(frozen=True)
class Planner:
    """Decides about the RayService, and about children that are no longer desired."""

    cluster: Cluster
    settings: Settings
    observer: Observer
    rollout: Rollout
    clock: Callable[[], datetime]

    async def plan(self, scope: Scope) -> Plan:
        """The plan of a pass whose helpers are applied.

        Raises:
            ClusterUnavailable: the API server is away or busy.
        """
        hold, delete = await self._hold(scope), await self._delete(scope)
        if hold is not None:
            return Plan(None, hold, delete)
        desired = scope.desired[scope.ray_service_identity]
        text = desired["spec"]["serveConfigV2"]
        is_in_place = replaces_in_place(scope.resource, text, scope.ray_service, scope.before, self.clock())
        body = in_place(desired, scope.resource.spec) if is_in_place else desired
        pods = await self._pods(scope) if removes_head(desired, scope.ray_service) else []
        return Plan(staged(body, scope.ray_service, scope.ray_clusters, pods), None, delete, is_in_place)

    async def _hold(self, scope: Scope) -> status.Held | None:
        gate = RolloutGate(self.cluster, self.observer, self.rollout, self.clock)
        resource, live = scope.resource, scope.ray_service
        desired = scope.desired[scope.ray_service_identity]
        held = await gate.held(
            resource, desired, live, scope.before, preloads=scope.preloads(), asked=scope.images
        )
        return held or await gate.held_for_weights(resource, desired, live, scope.cache_fillers())

    async def _delete(self, scope: Scope) -> tuple[Json, ...]:
        """Children to delete. One that keeps an image that still runs stays until another one keeps it."""
        undesired = scope.undesired().values()
        running, keeping = frozenset[Pin](), list[Json]()
        if any(map(is_preload, undesired)):
            ray_services = [scope.desired[scope.ray_service_identity], *filter(None, (scope.ray_service,))]
            running = pins(scope.resource.spec, self.settings, ray_services, scope.ray_clusters)
        if running:
            preloads = [each for each in scope.preloads() if each is not None]
            keeping = await self.observer.preloads.holding(preloads, scope.images)
        return tuple(
            each for each in undesired if not (is_preload(each) and is_needed(each, running, keeping))
        )

    async def _pods(self, scope: Scope) -> list[Json]:
        resource = scope.resource
        return await self.cluster.list(POD, resource.namespace, naming.everything(resource.name))
