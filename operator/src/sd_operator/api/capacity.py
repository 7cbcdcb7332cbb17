# SPDX-License-Identifier: Apache-2.0
"""The bounds of workers: how many replicas fit on a worker, and how many workers a group may have.

Ray Serve scales replicas, and Ray's autoscaler scales workers. The bounds of both come from this module. So the workers
always suffice for `replicas.max`, and the cluster starts with enough workers for `replicas.min`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from sd_operator.api.base import Rule
from sd_operator.api.placement import WorkerGroup
from sd_operator.api.serving import Replicas
from sd_operator.api.upgrade import Upgrade


class Sized(Protocol):
    """The fields of a Spec that decide how many replicas and workers there may be."""

    @property
    def gpus_per_replica(self) -> int:
        """GPUs of one model replica; 0 on a CPU."""

    @property
    def replicas_per_gpu(self) -> int:
        """Model replicas that share a GPU."""

    @property
    def replicas(self) -> Replicas:
        """Bounds of the model replicas."""

    @property
    def worker_groups(self) -> tuple[WorkerGroup, ...]:
        """Groups of workers."""

    @property
    def upgrade(self) -> Upgrade:
        """How many workers may be added while replicas are replaced."""


@dataclass(frozen=True)
class Bounds:
    """Minimum and maximum number of workers of a group."""

    low: int
    high: int


def gpus_per_worker(spec: Sized, group: WorkerGroup) -> int:
    """GPUs of one worker pod of the group. If gpusPerWorker is unset, the GPUs of one replica."""
    return spec.gpus_per_replica if group.gpus_per_worker is None else group.gpus_per_worker


def replicas_per_worker(spec: Sized, group: WorkerGroup) -> int:
    """Model replicas that fit on one worker of the group. A CPU worker has one."""
    if spec.gpus_per_replica == 0:
        return 1
    return gpus_per_worker(spec, group) // spec.gpus_per_replica * spec.replicas_per_gpu


def worker_bounds(spec: Sized) -> tuple[Bounds, ...]:
    """Minimum and maximum workers of each group, in the order of the groups, including the surge workers.

    A group without maxReplicas has a maximum that suffices for `replicas.max` in this group alone. Groups without
    minReplicas share, in their order, the workers that `replicas.min` needs beyond the minReplicas of the other groups.
    Each of them takes at most its maximum.
    """
    bounds = list(_bounds(spec))
    if more := _surge_workers(spec, bounds):
        index = _surging(spec)
        bounds[index] = replace(bounds[index], high=bounds[index].high + more)
    return tuple(bounds)


def _surging(spec: Sized) -> int:
    """Index of the group that gets the surge workers: the first group without maxReplicas, otherwise the first group."""
    return next((index for index, group in enumerate(spec.worker_groups) if group.max_replicas is None), 0)


def _surge_workers(spec: Sized, bounds: Iterable[Bounds]) -> int:
    """Number of surge workers to add.

    If the group has maxReplicas, the capacity of all groups counts. A group without it suffices for `replicas.max` alone.
    """
    group = spec.worker_groups[_surging(spec)]
    room = 0 if group.max_replicas is None else _held(spec, bounds) - spec.replicas.max
    return max(0, math.ceil((surge_replicas(spec) - room) / replicas_per_worker(spec, group)))


def surge_replicas(spec: Sized) -> int:
    """Replicas that may run beyond `replicas.max` while replicas are replaced; 0 if `upgrade.surgeWorkers` is 0.

    Ray Serve counts them in whole percent of the running replicas, rounded up. So the result is at least one percent.
    """
    if spec.upgrade.surge_workers == 0:
        return 0
    fewest = min(replicas_per_worker(spec, group) for group in spec.worker_groups)
    return max(spec.upgrade.surge_workers * fewest, math.ceil(spec.replicas.max / 100))


def _bounds(spec: Sized) -> tuple[Bounds, ...]:
    held = [replicas_per_worker(spec, group) for group in spec.worker_groups]
    lows = [group.min_replicas for group in spec.worker_groups]
    missing = spec.replicas.min - sum((low or 0) * count for low, count in zip(lows, held, strict=True))
    bounds = []
    for group, low, count in zip(spec.worker_groups, lows, held, strict=True):
        high = group.max_replicas or max(math.ceil(spec.replicas.max / count), low or 0)
        if low is None:
            low = min(math.ceil(max(0, missing) / count), high)  # noqa: PLW2901 - the minimum that the group left open
            missing -= low * count
        bounds.append(Bounds(low, high))
    return tuple(bounds)


def most_replicas(spec: Sized) -> int:
    """Replicas that fit on all workers when every group has its maximum number of workers."""
    return _held(spec, worker_bounds(spec))


def _held(spec: Sized, bounds: Iterable[Bounds]) -> int:
    return sum(
        each.high * replicas_per_worker(spec, group)
        for group, each in zip(spec.worker_groups, bounds, strict=True)
    )


def _replica_fits(spec: Sized) -> bool:
    if spec.gpus_per_replica == 0:
        return all(not group.gpus_per_worker for group in spec.worker_groups)
    return all(gpus_per_worker(spec, group) >= spec.gpus_per_replica for group in spec.worker_groups)


def _reaches_max(spec: Sized) -> bool:
    if any(group.max_replicas is None for group in spec.worker_groups) or not _replica_fits(spec):
        return True
    return _held(spec, _bounds(spec)) >= spec.replicas.max


_WORKER_GPUS = "(has(g.gpusPerWorker) ? g.gpusPerWorker : self.gpusPerReplica)"

CAPACITY_RULES = (
    Rule(
        cel=(
            "self.workerGroups.all(g, self.gpusPerReplica == 0"
            " ? !has(g.gpusPerWorker) || g.gpusPerWorker == 0"
            f" : {_WORKER_GPUS} >= self.gpusPerReplica)"
        ),
        holds=_replica_fits,
        message="no replica fits on a worker: set gpusPerWorker to gpusPerReplica or more, and to 0 if gpusPerReplica is 0",
        field=".workerGroups",
    ),
    Rule(
        cel=(
            "self.workerGroups.exists(g, !has(g.maxReplicas)"
            f" || (self.gpusPerReplica > 0 && {_WORKER_GPUS} < self.gpusPerReplica))"
            " || self.workerGroups.map(g, g.maxReplicas * (self.gpusPerReplica == 0 ? 1"
            f" : {_WORKER_GPUS} / self.gpusPerReplica * self.replicasPerGpu)).sum() >= self.replicas.max"
        ),
        holds=_reaches_max,
        message=(
            "the worker groups are too small for replicas.max: a worker runs gpusPerWorker / gpusPerReplica replicas, rounded"
            " down, times replicasPerGpu, and a CPU worker runs one; raise maxReplicas or gpusPerWorker, or lower replicas.max"
        ),
        field=".workerGroups",
    ),
)
"""Rules of the Spec. The second rule passes where the first one fails, so that a user sees one message."""
