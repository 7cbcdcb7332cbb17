# SPDX-License-Identifier: Apache-2.0
"""Decides whether a change of a RayService is on hold: for other upgrades, for its image, or for its weights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from sd_operator import naming, status
from sd_operator.api import Resource, Status
from sd_operator.json_types import Json
from sd_operator.kube import POD, Cluster
from sd_operator.naming import Key
from sd_operator.observe.effective_spec import of_ray_service
from sd_operator.observe.image_gate import Hold, asks_for_images, hold
from sd_operator.observe.observer import Observer
from sd_operator.observe.preload_reader import DesiredImages
from sd_operator.observe.weights_gate import asks_for_weights, fetching
from sd_operator.reconcile.rollout import Rollout, concerns
from sd_operator.status.condition_state import ConditionState
from sd_operator.status.model import fetching_weights
from sd_operator.status.preload import waiting_for_images
from sd_operator.status.upgrading import waiting_for_others


@dataclass(frozen=True)
class RolloutGate:
    """Decides whether a change is on hold; it reads objects and writes nothing."""

    cluster: Cluster
    observer: Observer
    rollout: Rollout
    clock: Callable[[], datetime]

    async def held(
        self,
        resource: Resource,
        wanted: Json,
        live: Json | None,
        before: Status,
        *,
        preloads: Iterable[Json | None],
        asked: DesiredImages,
    ) -> status.Held | None:
        """The hold on a change for other upgrades or for its image; None if there is none.

        Args:
            resource: the resource.
            wanted: the desired RayService.
            live: the live RayService; None if there is none.
            before: the recorded status.
            preloads: the live desired preload DaemonSets; None for one that could not be created.
            asked: the desired images.
        """
        preloads = list(preloads)
        key = Key(resource.namespace, resource.name)
        if concerns(resource, wanted, live, before) and (ahead := self.rollout.ahead(key)):
            return _left_alone(live, waiting_for_others(ahead))
        if asks_for_images(resource.spec, wanted, live):
            there = [each for each in preloads if each is not None]
            state = await self.observer.preloads.read_now(there, asked)
            state = replace(state, settled=state.settled and len(there) == len(preloads))
            if (found := hold(resource.spec, state, before, self.clock())) is not None:
                return _left_alone(live, waiting_for_images(found), found)
        return None

    async def held_for_weights(
        self, resource: Resource, wanted: Json, live: Json | None, fillers: Iterable[Json | None]
    ) -> status.Held | None:
        """The hold on a change for its weights; None if there is none.

        Args:
            resource: the resource.
            wanted: the desired RayService.
            live: the live RayService; None if there is none.
            fillers: the live DaemonSets that fill the cache; None for one that could not be created, which is ignored.
        """
        if not asks_for_weights(resource.spec, wanted, live):
            return None
        pods = await self.cluster.list(POD, resource.namespace, naming.everything(resource.name))
        nodes = await self.observer.nodes.read()
        found = fetching(resource.spec, [each for each in fillers if each is not None], pods, nodes)
        return None if found is None else _left_alone(live, fetching_weights(found))


def _left_alone(live: Json | None, why: ConditionState, hold: Hold | None = None) -> status.Held:
    return status.Held(why, of_ray_service(live, preloads=True) if live else None, hold)
