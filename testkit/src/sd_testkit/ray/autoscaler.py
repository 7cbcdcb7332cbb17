# SPDX-License-Identifier: Apache-2.0
"""Ray's autoscaler: the number of workers for each group (pure, time is a parameter)."""

from dataclasses import dataclass, field

from sd_testkit.json_types import Json
from sd_testkit.ray.resources import Amounts, fits, of_node, subtract
from sd_testkit.ray.session import Session


@dataclass(frozen=True)
class Plan:
    """A new number of workers for one group, and the pods to delete."""

    group: int
    replicas: int
    leaving: tuple[str, ...] = ()


@dataclass
class Autoscaler:
    """Ray's autoscaler, with a record of when workers became idle."""

    _idle_since: dict[str, float] = field(default_factory=dict)

    def plans(self, cluster: Json, session: Session, workers: dict[str, list[str]], now: float) -> list[Plan]:
        """Return the changes to make.

        Args:
            cluster: the live RayCluster. Its bounds apply, not those of the RayService.
            session: nodes and waiting replicas.
            workers: names of the pods by group.
            now: monotonic seconds.
        """
        groups = cluster["spec"].get("workerGroupSpecs", [])
        wanted = [_desired(group) for group in groups]
        coming: list[Amounts] = []
        for group, count in zip(groups, wanted, strict=True):
            joined = sum(name in session.nodes for name in workers.get(group["groupName"], []))
            coming += [of_node(group) for _ in range(max(0, count - joined))]
        for demand in session.serve.pending():
            _plan_for(demand, coming, groups, wanted)
        grown = [
            Plan(index, count)
            for index, (group, count) in enumerate(zip(groups, wanted, strict=True))
            if count > _desired(group)
        ]
        return grown or self._shrunk(cluster, session, workers, now)

    def _shrunk(
        self, cluster: Json, session: Session, workers: dict[str, list[str]], now: float
    ) -> list[Plan]:
        patience = cluster["spec"].get("autoscalerOptions", {}).get("idleTimeoutSeconds", 60)
        busy = {each.node for each in session.serve.replicas}
        idle = {name for name in session.nodes if name not in busy and name != session.head}
        self._idle_since = {name: self._idle_since.get(name, now) for name in idle}
        plans = []
        for index, group in enumerate(cluster["spec"].get("workerGroupSpecs", [])):
            surplus = _desired(group) - group.get("minReplicas", 0)
            mine = workers.get(group["groupName"], [])
            leaving = [name for name in mine if now - self._idle_since.get(name, now) > patience][:surplus]
            if leaving:
                plans.append(Plan(index, _desired(group) - len(leaving), tuple(leaving)))
        return plans


def _plan_for(demand: Amounts, coming: list[Amounts], groups: list[Json], wanted: list[int]) -> None:
    """Place the demand on a worker that is about to start, or add a worker: by priority, then in order."""
    for node in coming:
        if fits(demand, node):
            subtract(node, demand)
            return
    order = sorted(range(len(groups)), key=lambda index: -groups[index].get("priority", 0))
    for index in order:
        node = of_node(groups[index])
        if wanted[index] < groups[index].get("maxReplicas", 2**31 - 1) and fits(demand, node):
            wanted[index] += 1
            subtract(node, demand)
            coming.append(node)
            return


def _desired(group: Json) -> int:
    return int(max(group.get("replicas") or 0, group.get("minReplicas") or 0))
