# SPDX-License-Identifier: Apache-2.0
"""How model replicas and workers depend on one another: what fits on a worker, and how many workers there may be.

Ray Serve asks for replicas, Ray's autoscaler for workers; both bounds come from here, so that `replicas.max` can
always be reached and `replicas.min` starts with the cluster.
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
        """How many workers a replacement may add."""


@dataclass(frozen=True)
class Bounds:
    """Fewest and most workers of a group."""

    low: int
    high: int


def gpus_per_worker(spec: Sized, group: WorkerGroup) -> int:
    """GPUs of one worker pod of the group; one replica's where the group does not say."""
    return spec.gpus_per_replica if group.gpus_per_worker is None else group.gpus_per_worker


def replicas_per_worker(spec: Sized, group: WorkerGroup) -> int:
    """Model replicas that fit on one worker of the group; a CPU worker holds one."""
    if spec.gpus_per_replica == 0:
        return 1
    return gpus_per_worker(spec, group) // spec.gpus_per_replica * spec.replicas_per_gpu


def worker_bounds(spec: Sized) -> tuple[Bounds, ...]:
    """Bounds of each group's workers, in the order of the groups; with room for the workers of a replacement.

    A group without a ceiling of its own may hold `replicas.max` alone. Groups without a floor keep, in their
    order, what `replicas.min` needs beyond the floors that are given, each up to its ceiling.
    """
    bounds = list(_bounds(spec))
    if more := _surge_workers(spec, bounds):
        index = _surging(spec)
        bounds[index] = replace(bounds[index], high=bounds[index].high + more)
    return tuple(bounds)


def _surging(spec: Sized) -> int:
    """Index of the group that gets the workers of a replacement: the first without a ceiling of its own, or the first."""
    return next((index for index, group in enumerate(spec.worker_groups) if group.max_replicas is None), 0)


def _surge_workers(spec: Sized, bounds: Iterable[Bounds]) -> int:
    """Workers to add. Ceilings that the user gave count; a group without one holds `replicas.max` whatever others hold."""
    group = spec.worker_groups[_surging(spec)]
    room = 0 if group.max_replicas is None else _held(spec, bounds) - spec.replicas.max
    return max(0, math.ceil((surge_replicas(spec) - room) / replicas_per_worker(spec, group)))


def surge_replicas(spec: Sized) -> int:
    """Replicas that have room beyond `replicas.max` while replicas are replaced; 0 where that is turned off.

    Serve counts them in whole percent of the replicas that run, rounded up, so there is room for one percent.
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
            low = min(math.ceil(max(0, missing) / count), high)  # noqa: PLW2901 - the floor that was left open
            missing -= low * count
        bounds.append(Bounds(low, high))
    return tuple(bounds)


def most_replicas(spec: Sized) -> int:
    """Replicas that all workers together hold where no group can start another one."""
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
        message="no replica fits on a worker: gpusPerWorker must be at least gpusPerReplica, and 0 when that is 0",
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
            "the worker groups together cannot hold replicas.max: a worker holds gpusPerWorker divided by"
            " gpusPerReplica replicas, rounded down, a CPU worker one; raise maxReplicas or gpusPerWorker, or"
            " lower replicas.max"
        ),
        field=".workerGroups",
    ),
)
"""Rules of the Spec; the second is silent where the first speaks."""
