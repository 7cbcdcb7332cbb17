# SPDX-License-Identifier: Apache-2.0
"""Reads the snapshot of a service and computes its status, in the same way for a pass and for `sdservice why`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sd_operator import status
from sd_operator.api import Resource, Spec, Status
from sd_operator.errors import Refused
from sd_operator.json_types import Json
from sd_operator.naming import Key
from sd_operator.observe.observer import LiveChildren, Observer
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.preload_reader import DesiredImages
from sd_operator.observe.snapshot import Snapshot
from sd_operator.reconcile.child_writer import Identity, with_refusals
from sd_operator.status.condition_state import ConditionState


@dataclass(frozen=True)
class Situation:
    """The live objects of a service with an accepted spec, and how the spec was applied.

    Attributes:
        children: the live children; `ray_clusters` are those of its RayService.
        token: Ray's token.
        asked: the spec and the images to preload.
        held: the change that is on hold; None if the RayService was applied.
        in_place: replicas are replaced in place, because no node became available for an additional worker.
        refused: helper objects that could not be written.
    """

    children: LiveChildren
    ray_clusters: list[Json]
    token: str
    asked: DesiredImages
    held: status.Held | None = None
    in_place: bool = False
    refused: Mapping[Identity, PodProblem] = field(default_factory=dict)


@dataclass(frozen=True)
class Assessor:
    """Reads the input of a status and computes it; writes nothing."""

    observer: Observer
    clock: Callable[[], datetime]

    async def of_accepted(
        self, resource: Resource, found: Situation, before: Status
    ) -> tuple[Status, Snapshot]:
        """The status of a service whose spec is accepted, and its snapshot.

        Args:
            resource: the resource.
            found: its live objects.
            before: the recorded status.

        Raises:
            ClusterUnavailable: the API server is unavailable or overloaded.
        """
        key, now = Key(resource.namespace, resource.name), self.clock()
        snapshot = await self.observer.snapshot(
            key, found.children, found.ray_clusters, found.token, found.asked
        )
        snapshot = with_refusals(snapshot, found.refused, resource.spec.image_preload.warm_nodes)

        def compute(seen: Snapshot) -> Status:
            image = found.asked.images[0]
            return status.compute(
                resource, seen, image, before, now, held=found.held, in_place=found.in_place
            )

        return await self._explained(key, snapshot, compute)

    async def of_refused(
        self, live: Json, why: ConditionState, asked: Spec | None, before: Status
    ) -> tuple[Status, Snapshot]:
        """The status of a service whose spec is refused, with the state of what an earlier spec left running.

        Args:
            live: the resource.
            why: the state of `Accepted`.
            asked: its spec; None if it cannot be parsed.
            before: the recorded status.

        Raises:
            ClusterUnavailable: the API server is unavailable or overloaded.
        """
        metadata, now = live["metadata"], self.clock()
        key = Key(metadata["namespace"], metadata["name"])
        refusal = status.Refusal(key, metadata["generation"], why, asked)
        try:
            running = await self.observer.running(key, metadata["uid"])
        except Refused as hidden:
            return status.unseen(refusal, str(hidden), before, now), Snapshot()
        if running is None:
            return status.refused(refusal, None, before, now), Snapshot()
        effective, snapshot = running
        return await self._explained(
            key, snapshot, lambda seen: status.refused(refusal, (effective, seen), before, now)
        )

    async def _explained(
        self, key: Key, snapshot: Snapshot, compute: Callable[[Snapshot], Status]
    ) -> tuple[Status, Snapshot]:
        """The status; Events are read if nothing else explains why the service does not serve.

        Pods that end and are replaced leave no trace but Events.
        """
        after = compute(snapshot)
        if not status.is_unexplained(after):
            return after, snapshot
        snapshot = snapshot.with_events(await self.observer.events(key.namespace, snapshot), self.clock())
        return compute(snapshot), snapshot
