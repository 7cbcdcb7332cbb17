# SPDX-License-Identifier: Apache-2.0
"""What is asked and what is observed become status: computed anew each time, so nothing changed means nothing to write (pure).

A spec that is refused changes nothing of what runs. `Accepted` tells of the refusal; everything else is told of what
an earlier spec left running, by the intent read back from its RayService.
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

_LOOK_AGAIN_SECONDS = 30.0
_SOON_SECONDS = 3.0
_MENDED_ELSEWHERE = {Reason.KUBERAY_MISSING, Reason.KUBERAY_TOO_OLD, Reason.NAME_CONFLICT, Reason.REFUSED}
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
    """A change that waits.

    Attributes:
        why: what is told of it.
        running: what the live RayService asks for; None where there is none yet.
        hold: how long it waits for its image; None where it waits for something else.
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
    """The status of an accepted resource. While a change is held, it tells of what runs, and that it waits.

    Args:
        resource: the resource as parsed.
        snapshot: its live children.
        image: reference of the runtime image asked for.
        previous: the status on record, for transition times, and for the last start of a worker.
        now: the time of conditions that flip, UTC.
        held: what keeps the RayService from becoming what the spec asks for.
        in_place: replicas are replaced where they are, since no node came for an additional worker.
    """
    effective = of_spec(resource.spec, image, in_place=in_place)
    runs = (held and held.running) or effective
    config = held.why if held else config_applied(effective, snapshot, in_place=in_place)
    recorded = cold_start.last(snapshot, previous.cold_start, now)
    states = _verdicts(runs, snapshot, accepted(runs, snapshot), delays(config, recorded, runs), now)
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
    """Conditions of a change whose weights cannot be had, while what ran before serves on."""
    found = {ConditionType.MODEL_AVAILABLE: why}
    if ready_now.reason is Reason.SERVING:
        message = f"{ready_now.message} The former weights are in use. {why.message}"
        found[ConditionType.READY] = ConditionState("True", Reason.DEGRADED, message)
    return found


@dataclass(frozen=True)
class Refusal:
    """A spec that is not acted on.

    Attributes:
        key: of which resource; `generation` is that of the spec.
        why: what `Accepted` says.
        asked: the spec, None where it cannot be parsed.
    """

    key: Key
    generation: int
    why: ConditionState
    asked: Spec | None = None


def not_accepted(error: SdServiceError) -> ConditionState:
    """`Accepted` of a resource that cannot be acted on."""
    return ConditionState("False", _REASONS.get(type(error), Reason.REFUSED), str(error))


def refused(
    refusal: Refusal, running: tuple[EffectiveSpec, Snapshot] | None, previous: Status, now: datetime
) -> Status:
    """The status of a resource whose spec is refused: `Accepted` says why, the rest is about what runs.

    Args:
        refusal: of which spec, and why.
        running: what an earlier spec left running; None where it has no RayService of its own.
        previous: the status on record, for transition times, for the last start of a worker, and for the words about a
            service that is not there.
        now: the time of conditions that flip, UTC.
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
    runs_what_is_asked = asked is not None and serve_config(asked) == effective.config
    config = config_applied(effective, snapshot) if runs_what_is_asked else why
    recorded = cold_start.last(snapshot, previous.cold_start, now)
    record = Record(effective, snapshot, previous, generation, now)
    states = record.kept(_verdicts(effective, snapshot, why, delays(config, recorded, effective), now))
    found = conditions(states, previous, generation, now)
    return record.counted(_status(refusal.key, generation, found, effective, snapshot, recorded=recorded))


def unseen(refusal: Refusal, hidden: str, previous: Status, now: datetime) -> Status:
    """The status of a resource whose spec is refused while what runs may not be read: what was known of it is kept.

    Args:
        refusal: of which spec, and why.
        hidden: what forbids the reading.
        previous: the status on record.
        now: the time of conditions that flip, UTC.
    """
    unknown = ConditionState("Unknown", Reason.REFUSED, f"What runs cannot be read: {hidden}")
    states = {ConditionType.READY: unknown, ConditionType.ACCEPTED: refusal.why}
    kept = tuple(each for each in previous.conditions if each.type not in states)
    found = (*conditions(states, previous, refusal.generation, now), *kept)
    return previous.model_copy(update={"observed_generation": refusal.generation, "conditions": found})


def _verdicts(
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


def look_again_seconds(status: Status) -> float | None:
    """When to compute anew though nothing was heard: soon while time alone may change it, else never.

    Soon too where the cause is an object that is not ours, so that nothing is heard of its mending. Never where it
    serves, since a poll of Ray's dashboards tells what events do not; nor where nothing is meant to run.
    """
    found = {condition.type: condition for condition in status.conditions}
    ready_now, accepted_now = found[ConditionType.READY], found[ConditionType.ACCEPTED]
    if accepted_now.reason in _MENDED_ELSEWHERE or ready_now.status == "Unknown":
        return _LOOK_AGAIN_SECONDS
    if accepted_now.reason == Reason.WAITING_FOR_DELETION:
        return _SOON_SECONDS  # a Secret that goes sends no event
    if ready_now.reason in {Reason.SUSPENDED, accepted_now.reason}:
        return None  # nothing runs before an edit, and an edit is an event
    is_settled = ready_now.reason in {Reason.SERVING, Reason.SCALED_TO_ZERO}
    is_placed = found[ConditionType.SCHEDULABLE].status == "True"
    # A pod of a second cluster counts as without a node after a while: by then nothing is heard of it.
    is_quiet = is_settled and is_placed and not is_upgrading(status)
    return None if is_quiet and not _waits_for_others(status) else _LOOK_AGAIN_SECONDS


def _waits_for_others(status: Status) -> bool:
    """For what sends no event: images on nodes, a policy that forbids placeholders, the turn of other services.

    Nor does an answer of Ray that stays the same.
    """
    found = {condition.type: condition.reason for condition in status.conditions}
    is_short = status.warm_nodes is not None and bool(status.warm_nodes.message)
    silent = {Reason.WAITING_FOR_OTHERS, Reason.WAITING_FOR_WEIGHTS, Reason.CONFIG_PENDING, *MODEL_PROBLEMS}
    return lacks_images(status) or is_short or found[ConditionType.CONFIG_APPLIED] in silent


def lacks_images(status: Status) -> bool:
    """Whether images that should be on nodes are not."""
    return any(
        each.type == ConditionType.IMAGES_PRELOADED and each.status == "False" for each in status.conditions
    )


def is_upgrading(status: Status) -> bool:
    """A second cluster is on its way."""
    return any(each.type == ConditionType.UPGRADING and each.status == "True" for each in status.conditions)


def is_unexplained(status: Status) -> bool:
    """It does not serve, and what was read so far names no cause."""
    vague = {Reason.STARTING, Reason.HEAD_NOT_READY, Reason.NO_REPLICAS, Reason.NO_ENDPOINTS}
    return status.conditions[0].reason in vague
