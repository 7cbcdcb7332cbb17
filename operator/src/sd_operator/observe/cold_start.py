# SPDX-License-Identifier: Apache-2.0
"""The phases of a worker's start, from its pod to a replica that can generate: for status, metrics and `why` (pure).

The times come from three clocks: the API server (creation), scheduler and kubelet (conditions, container states), and the
runtime in the same pod (from the container on). Each phase ends when the next one starts. The operator keeps no state:
what an earlier pass saw is either still reported or recorded in the status.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sd_operator import naming, times
from sd_operator.api.status import ColdStart
from sd_operator.observe.snapshot import PodTimes, PodView, Snapshot
from sd_operator.ray.replica_starts import IMPORT, StartReport
from sd_operator.ray.serve_state import Reading

# A replica that is placed later on a container found a running worker, so that is no cold start.
_LATE = timedelta(minutes=10)


class Phase(StrEnum):
    """The phases in their order; the runtime's phases have the runtime's names."""

    NODE = "node"
    IMAGE = "image"
    RAY = "ray"
    WEIGHTS = "weights"
    PIPELINE = "pipeline"
    COMPILE = "compile"
    WARMUP = "warmup"


RUNTIME_PHASES = (Phase.WEIGHTS, Phase.PIPELINE, Phase.COMPILE, Phase.WARMUP)


@dataclass(frozen=True)
class Start:
    """The start of one worker.

    Attributes:
        worker: name of the pod.
        seconds: duration by phase, in order; until the start is complete, the last phase is still running.
        ready_at: when its first replica could generate; None before that.
        first_picture_seconds: duration of that replica's first picture; None before it is complete.
    """

    worker: str
    seconds: Mapping[Phase, float]
    ready_at: datetime | None = None
    first_picture_seconds: float | None = None

    @property
    def total(self) -> float:
        """Seconds so far."""
        return round(sum(self.seconds.values()), 1)

    @property
    def running(self) -> Phase | None:
        """The phase that is running; None once the start is complete."""
        return None if self.ready_at else list(self.seconds)[-1]


def starts(snapshot: Snapshot, now: datetime) -> tuple[Start, ...]:
    """All reported starts of workers, running and complete, ordered by the age of the pods."""
    workers = [
        (pod.times.created, pod.name, pod, pod.times)
        for pod in snapshot.pods
        if pod.times and not pod.is_head
    ]
    found = (
        _start(pod, known, snapshot.serve.get(pod.cluster), now)
        for _, _, pod, known in sorted(workers, key=lambda each: each[:2])
    )
    return tuple(start for start in found if start is not None)


def news(snapshot: Snapshot, recorded: ColdStart | None, now: datetime) -> list[Start]:
    """Complete starts that are not recorded yet, in the order in which they ended."""
    over = [start for start in starts(snapshot, now) if start.ready_at is not None]
    if recorded is not None:
        known = (recorded.ready_at, recorded.worker)
        over = [start for start in over if start.worker != recorded.worker and _end(start) > known]
    return sorted(over, key=_end)


def last(snapshot: Snapshot, recorded: ColdStart | None, now: datetime) -> ColdStart | None:
    """The record of the last complete start: a new one, or the recorded one with the time of its first picture."""
    found = news(snapshot, recorded, now)
    if found:
        return _record(found[-1])
    if recorded is None or recorded.first_picture_seconds is not None:
        return recorded
    complete = (_record(start) for start in starts(snapshot, now) if start.ready_at is not None)
    end = (recorded.worker, recorded.ready_at)
    same = next((each for each in complete if (each.worker, each.ready_at) == end), recorded)
    return recorded.model_copy(update={"first_picture_seconds": same.first_picture_seconds})


def of_record(recorded: ColdStart) -> Start:
    """The start that a status records."""
    seconds = {phase: getattr(recorded, f"{phase.value}_seconds") for phase in Phase}
    taken = {
        phase: each for phase, each in seconds.items() if each or phase not in {Phase.COMPILE, Phase.WARMUP}
    }
    return Start(recorded.worker, taken, times.parsed(recorded.ready_at), recorded.first_picture_seconds)


def _record(start: Start) -> ColdStart:
    ready_at, worker = _end(start)
    return ColdStart(
        worker=worker,
        ready_at=ready_at,
        total_seconds=start.total,
        first_picture_seconds=start.first_picture_seconds,
        **{f"{phase.value}_seconds": start.seconds.get(phase, 0.0) for phase in Phase},
    )


def _end(start: Start) -> tuple[str, str]:
    return times.stamp(start.ready_at) if start.ready_at else "", start.worker


def _start(pod: PodView, known: PodTimes, reading: Reading | None, now: datetime) -> Start | None:
    """The start of a worker; None if the worker just runs: without a replica, or with a later or silent one."""
    report = _first_report(pod, reading)
    if report is None and not _is_under_way(pod, known, reading, now):
        return None
    if report is not None and known.started and report.began - known.started > _LATE:
        return None
    seconds = dict(_of_pod(known, report, now))
    if report is None:
        return Start(pod.name, seconds)
    seconds |= _of_replica(report, now)
    ready_at = None if report.phase else report.since
    return Start(pod.name, seconds, ready_at, _rounded(report.first_picture_seconds))


def _first_report(pod: PodView, reading: Reading | None) -> StartReport | None:
    """The start report of the worker's first replica; None if there is none."""
    if reading is None or not pod.ip:
        return None
    here = {name for name, replica in reading.state.models.items() if replica.address == pod.ip}
    reports = [report for name, report in reading.starts.items() if name in here]
    return min(reports, key=lambda report: report.began, default=None)


def _is_under_way(pod: PodView, known: PodTimes, reading: Reading | None, now: datetime) -> bool:
    """Whether a worker without a start report is starting: Serve may still place a replica on it."""
    if known.started is None:
        return True
    if now - known.started > _LATE:
        return False
    model = reading.state.deployments.get(naming.MODEL_DEPLOYMENT) if reading else None
    if model is None:
        # Ray reports nothing, or still builds the application. A placed replica makes the pod ready.
        return not pod.ready
    here = [replica for replica in model.replicas.values() if replica.address == pod.ip]
    return not any(replica.running for replica in here) if here else model.target > len(model.replicas)


def _of_pod(known: PodTimes, report: StartReport | None, now: datetime) -> Iterator[tuple[Phase, float]]:
    """The phases that Kubernetes reports."""
    begins = ((Phase.NODE, known.created), (Phase.IMAGE, known.scheduled), (Phase.RAY, known.pulled))
    reached = [(phase, at) for phase, at in begins if at is not None]
    loading = None
    if report is not None and IMPORT in report.seconds:
        loading = report.began + timedelta(seconds=report.seconds[IMPORT])
    ends = [*(at for _, at in reached[1:]), loading or now]
    for (phase, begin), end in zip(reached, ends, strict=True):
        # The clocks of machines differ, and Kubernetes reports whole seconds.
        yield phase, round(max(0.0, (end - begin).total_seconds()), 1)


def _of_replica(report: StartReport, now: datetime) -> dict[Phase, float]:
    """The phases that the runtime reports."""
    running = {report.phase: (now - report.since).total_seconds()} if report.phase else {}
    seconds = {**report.seconds, **running}
    return {phase: round(max(0.0, seconds[phase]), 1) for phase in RUNTIME_PHASES if phase in seconds}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
