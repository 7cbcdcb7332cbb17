# SPDX-License-Identifier: Apache-2.0
"""Computes the status from the spec and the snapshot, from scratch each time (pure).

An unchanged result means that nothing has to be written.

A refused spec changes nothing that runs. `Accepted` reports the refusal. Everything else describes what an earlier spec
left running, by the effective spec that is read back from its RayService.
"""

from dataclasses import dataclass
from datetime import datetime

from sd_operator import naming
from sd_operator.api import Condition, Resource, Spec, Status
from sd_operator.api.status import ColdStart, ConditionType, Reason
from sd_operator.builders.serve_config import serve_config
from sd_operator.errors import (
    InvalidResource,
    KubeRayMissing,
    KubeRayTooOld,
    NameConflict,
    Refused,
    SdServiceError,
    WaitingForDeletion,
)
from sd_operator.naming import Key
from sd_operator.observe import cold_start
from sd_operator.observe.effective_spec import EffectiveSpec, of_spec
from sd_operator.observe.image_gate import Hold
from sd_operator.observe.snapshot import Snapshot
from sd_operator.status.condition_state import ConditionState
from sd_operator.status.conditions import accepted, suspended
from sd_operator.status.config import config_applied
from sd_operator.status.counts import replicas, workers
from sd_operator.status.model import MODEL_PROBLEMS, model_available, model_status
from sd_operator.status.on_record import Record
from sd_operator.status.preload import preload_status, preloaded, warm_status
from sd_operator.status.ready import ready
from sd_operator.status.schedulable import schedulable
from sd_operator.status.start_warnings import delays
from sd_operator.status.transitions import conditions
from sd_operator.status.upgrading import upgrading

_REQUEUE_SECONDS = 30.0
_SOON_SECONDS = 3.0
_FIXED_ELSEWHERE = {Reason.KUBERAY_MISSING, Reason.KUBERAY_TOO_OLD, Reason.NAME_CONFLICT, Reason.REFUSED}
_REASONS = {
    InvalidResource: Reason.INVALID,
    NameConflict: Reason.NAME_CONFLICT,
    WaitingForDeletion: Reason.WAITING_FOR_DELETION,
    KubeRayMissing: Reason.KUBERAY_MISSING,
    KubeRayTooOld: Reason.KUBERAY_TOO_OLD,
    Refused: Reason.REFUSED,
}


@dataclass(frozen=True)
class Held:
    """A change that is on hold.

    Attributes:
        why: the state that conditions report about it.
        running: the effective spec of the live RayService; None if there is no RayService yet.
        hold: how long the change waits for its image; None if it waits for something else.
    """

    why: ConditionState
    running: EffectiveSpec | None
    hold: Hold | None = None


def compute(
    resource: Resource,
    snapshot: Snapshot,
    image: str,
    previous: Status,
    now: datetime,
    *,
    held: Held | None = None,
    in_place: bool = False,
) -> Status:
    """The status of an accepted resource. While a change is on hold, it describes what runs and why the change waits.

    Args:
        resource: the parsed resource.
        snapshot: the state of its live children.
        image: reference of the desired runtime image.
        previous: the recorded status, for transition times and for the last start of a worker.
        now: the time for conditions that flip, UTC.
        held: the change that is on hold; None if the RayService matches the spec.
        in_place: replicas are replaced in place, because no node became available for an additional worker.
    """
    effective = of_spec(resource.spec, image, in_place=in_place)
    runs = (held and held.running) or effective
    config = held.why if held else config_applied(effective, snapshot, in_place=in_place)
    recorded = cold_start.last(snapshot, previous.cold_start, now)
    states = _states(runs, snapshot, accepted(runs, snapshot), delays(config, recorded, runs), now)
    record = Record(runs, snapshot, previous, resource.generation, now)
    states = record.kept(states)
    if held is not None:
        states[ConditionType.IMAGES_PRELOADED] = preloaded(effective, snapshot, held.hold)
        states[ConditionType.UPGRADING if held.running else ConditionType.READY] = held.why
        if held.why.reason in MODEL_PROBLEMS:
            states |= _of_failed_change(held.why, states[ConditionType.READY])
    found = conditions(states, previous, resource.generation, now)
    key = Key(resource.namespace, resource.name)
    computed = record.counted(_status(key, resource.generation, found, runs, snapshot, recorded=recorded))
    if held is None or held.hold is None:
        return computed
    return computed.model_copy(update={"preload": preload_status(effective, snapshot, held.hold)})


def _of_failed_change(why: ConditionState, ready_now: ConditionState) -> dict[ConditionType, ConditionState]:
    """Conditions for a change whose weights cannot be fetched, while the former replicas continue to serve."""
    found = {ConditionType.MODEL_AVAILABLE: why}
    if ready_now.reason is Reason.SERVING:
        message = f"{ready_now.message} The replicas use the former weights. {why.message}"
        found[ConditionType.READY] = ConditionState("True", Reason.DEGRADED, message)
    return found


@dataclass(frozen=True)
class Refusal:
    """A refused spec, on which the operator does not act.

    Attributes:
        key: the resource; `generation` is that of the spec.
        why: the state of `Accepted`.
        asked: the spec; None if it cannot be parsed.
    """

    key: Key
    generation: int
    why: ConditionState
    asked: Spec | None = None


def not_accepted(error: SdServiceError) -> ConditionState:
    """The state of `Accepted` for a resource with this error."""
    return ConditionState("False", _REASONS.get(type(error), Reason.REFUSED), str(error))


def refused(
    refusal: Refusal, running: tuple[EffectiveSpec, Snapshot] | None, previous: Status, now: datetime
) -> Status:
    """The status of a resource whose spec is refused: `Accepted` gives the reason, the rest describes what runs.

    Args:
        refusal: the refused spec, and the reason.
        running: what an earlier spec left running; None if the resource has no RayService of its own.
        previous: the recorded status: for transition times, for the last start of a worker, and for the fields of a service
            that has no RayService.
        now: the time for conditions that flip, UTC.
    """
    why, asked, generation = refusal.why, refusal.asked, refusal.generation
    if running is None:
        states = {ConditionType.READY: why, ConditionType.ACCEPTED: why}
        return Status(
            observed_generation=generation,
            conditions=conditions(states, previous, generation, now),
            url=previous.url,
            selector=previous.selector,
            cold_start=previous.cold_start,
            model=previous.model,
            image=previous.image,
        )
    effective, snapshot = running
    runs_desired_config = asked is not None and serve_config(asked) == effective.config
    config = config_applied(effective, snapshot) if runs_desired_config else why
    recorded = cold_start.last(snapshot, previous.cold_start, now)
    record = Record(effective, snapshot, previous, generation, now)
    states = record.kept(_states(effective, snapshot, why, delays(config, recorded, effective), now))
    found = conditions(states, previous, generation, now)
    return record.counted(_status(refusal.key, generation, found, effective, snapshot, recorded=recorded))


def unseen(refusal: Refusal, hidden: str, previous: Status, now: datetime) -> Status:
    """The status of a resource whose spec is refused while the operator may not read its children: the rest is kept.

    Args:
        refusal: the refused spec, and the reason.
        hidden: the refusal of the read.
        previous: the recorded status.
        now: the time for conditions that flip, UTC.
    """
    unknown = ConditionState("Unknown", Reason.REFUSED, f"The operator cannot read what runs: {hidden}")
    states = {ConditionType.READY: unknown, ConditionType.ACCEPTED: refusal.why}
    kept = tuple(each for each in previous.conditions if each.type not in states)
    found = (*conditions(states, previous, refusal.generation, now), *kept)
    return previous.model_copy(update={"observed_generation": refusal.generation, "conditions": found})


def _states(
    effective: EffectiveSpec,
    snapshot: Snapshot,
    is_accepted: ConditionState,
    config: ConditionState,
    now: datetime,
) -> dict[ConditionType, ConditionState]:
    return {
        ConditionType.READY: ready(effective, snapshot, now),
        ConditionType.ACCEPTED: is_accepted,
        ConditionType.IMAGES_PRELOADED: preloaded(effective, snapshot),
        ConditionType.MODEL_AVAILABLE: model_available(effective, snapshot),
        ConditionType.CONFIG_APPLIED: config,
        ConditionType.SCHEDULABLE: schedulable(snapshot, now),
        ConditionType.UPGRADING: upgrading(effective, snapshot),
        ConditionType.SUSPENDED: suspended(effective, snapshot),
    }


def _status(
    key: Key,
    generation: int,
    found: tuple[Condition, ...],
    effective: EffectiveSpec,
    snapshot: Snapshot,
    *,
    recorded: ColdStart | None,
) -> Status:
    view = snapshot.ray_service
    return Status(
        observed_generation=generation,
        conditions=found,
        url=snapshot.gateway or naming.serve_url(naming.serve_service(key.name), key.namespace),
        replicas=replicas(effective, snapshot),
        selector=f"{naming.NAME_LABEL}={key.name},ray.io/node-type=worker",
        workers=workers(effective, snapshot),
        preload=preload_status(effective, snapshot),
        warm_nodes=warm_status(snapshot),
        cold_start=recorded,
        model=model_status(effective, snapshot),
        image=effective.image,
        ray_service=key.name if view else None,
        active_ray_cluster=(view.active or None) if view else None,
    )


def requeue_seconds(status: Status) -> float | None:
    """Seconds until the next pass if no event arrives before; None if no such pass is needed.

    A pass is needed while time alone may change the status. It is also needed if the cause is an object that the operator
    does not watch, so that its repair sends no event. A service that serves needs none: the polls of Ray's dashboards report
    what events do not. A service that is not meant to run needs none either.
    """
    found = {condition.type: condition for condition in status.conditions}
    ready_now, accepted_now = found[ConditionType.READY], found[ConditionType.ACCEPTED]
    if accepted_now.reason in _FIXED_ELSEWHERE or ready_now.status == "Unknown":
        return _REQUEUE_SECONDS
    if accepted_now.reason == Reason.WAITING_FOR_DELETION:
        return _SOON_SECONDS  # a Secret that is deleted sends no event
    if ready_now.reason in {Reason.SUSPENDED, accepted_now.reason}:
        return None  # nothing runs before an edit, and an edit is an event
    is_settled = ready_now.reason in {Reason.SERVING, Reason.SCALED_TO_ZERO}
    is_placed = found[ConditionType.SCHEDULABLE].status == "True"
    # A pod of a second cluster counts as without a node only after a while, and no event arrives then.
    is_quiet = is_settled and is_placed and not is_upgrading(status)
    return None if is_quiet and not _waits_for_others(status) else _REQUEUE_SECONDS


def _waits_for_others(status: Status) -> bool:
    """Whether the service waits for something that sends no event.

    Such are images on nodes, a policy that forbids placeholder pods, upgrades of other services, and an unchanged answer of
    Ray.
    """
    found = {condition.type: condition.reason for condition in status.conditions}
    is_short = status.warm_nodes is not None and bool(status.warm_nodes.message)
    silent = {Reason.WAITING_FOR_OTHERS, Reason.WAITING_FOR_WEIGHTS, Reason.CONFIG_PENDING, *MODEL_PROBLEMS}
    return lacks_images(status) or is_short or found[ConditionType.CONFIG_APPLIED] in silent


def lacks_images(status: Status) -> bool:
    """Whether an image that should be on nodes is missing on one of them."""
    return any(
        each.type == ConditionType.IMAGES_PRELOADED and each.status == "False" for each in status.conditions
    )


def is_upgrading(status: Status) -> bool:
    """Whether a second RayCluster is starting."""
    return any(each.type == ConditionType.UPGRADING and each.status == "True" for each in status.conditions)


def is_unexplained(status: Status) -> bool:
    """Whether the service does not serve and the status names no cause yet."""
    vague = {Reason.STARTING, Reason.HEAD_NOT_READY, Reason.NO_REPLICAS, Reason.NO_ENDPOINTS}
    return status.conditions[0].reason in vague
