# SPDX-License-Identifier: Apache-2.0
"""Spec and observation become status: computed anew each time, so nothing changed means nothing to write (pure)."""

from datetime import datetime

from sd_operator import naming, times
from sd_operator.api import Condition, Resource, Status
from sd_operator.api.status import ConditionType, ModelStatus, Reason
from sd_operator.errors import (
    InvalidResource,
    KubeRayMissing,
    KubeRayTooOld,
    NameConflict,
    Refused,
    SdServiceError,
)
from sd_operator.observed import Observed
from sd_operator.status.conditions import accepted, preloaded, suspended
from sd_operator.status.config import config_applied
from sd_operator.status.counts import preload_counts, replicas, workers
from sd_operator.status.model import model_available
from sd_operator.status.ready import ready
from sd_operator.status.schedulable import schedulable
from sd_operator.status.upgrading import upgrading
from sd_operator.status.verdict import Verdict

_MESSAGE_LIMIT = 1024
_LOOK_AGAIN_SECONDS = 30.0
_MENDED_ELSEWHERE = {Reason.KUBERAY_MISSING, Reason.KUBERAY_TOO_OLD, Reason.NAME_CONFLICT}


def compute(resource: Resource, observed: Observed, image: str, previous: Status, now: datetime) -> Status:
    """The status of an accepted resource.

    Args:
        resource: the resource as parsed.
        observed: its live children.
        image: reference of the runtime image asked for.
        previous: the status on record, for transition times only.
        now: the time of conditions that flip, UTC.
    """
    spec = resource.spec
    verdicts = {
        ConditionType.READY: ready(spec, observed, now),
        ConditionType.ACCEPTED: accepted(observed),
        ConditionType.IMAGES_PRELOADED: preloaded(spec, observed),
        ConditionType.MODEL_AVAILABLE: model_available(spec, observed),
        ConditionType.CONFIG_APPLIED: config_applied(spec, observed),
        ConditionType.SCHEDULABLE: schedulable(observed, now),
        ConditionType.UPGRADING: upgrading(spec, observed),
        ConditionType.SUSPENDED: suspended(spec, observed),
    }
    source = spec.source()
    view = observed.ray_service
    return Status(
        observed_generation=resource.generation,
        conditions=_conditions(verdicts, previous, resource.generation, now),
        url=naming.serve_url(resource.name, resource.namespace),
        replicas=replicas(spec, observed),
        selector=f"{naming.NAME_LABEL}={resource.name},ray.io/node-type=worker",
        workers=workers(spec, observed),
        preload=preload_counts(spec, observed),
        model=ModelStatus(uri=source.uri or "", revision=source.revision),
        image=image,
        ray_service=resource.name if view else None,
        active_ray_cluster=(view.active or None) if view else None,
    )


def look_again_seconds(status: Status) -> float | None:
    """When to compute anew though nothing was heard: soon while time alone may change it, else never.

    Soon too where the cause is an object that is not ours, so that nothing is heard of its mending. Never where it
    serves, since a poll of Ray's dashboards tells what events do not; nor where nothing is meant to run.
    """
    ready_now, accepted_now = (
        _condition(status, kind) for kind in (ConditionType.READY, ConditionType.ACCEPTED)
    )
    if accepted_now.reason in _MENDED_ELSEWHERE:
        return _LOOK_AGAIN_SECONDS
    if accepted_now.status != "True" or ready_now.reason == Reason.SUSPENDED:
        return None
    waits = _condition(status, ConditionType.SCHEDULABLE)
    is_settled = ready_now.reason in {Reason.SERVING, Reason.SCALED_TO_ZERO} and waits.status == "True"
    return None if is_settled else _LOOK_AGAIN_SECONDS


def is_unexplained(status: Status) -> bool:
    """It does not serve, and what was read so far names no cause."""
    vague = {Reason.STARTING, Reason.HEAD_NOT_READY, Reason.NO_REPLICAS, Reason.NO_ENDPOINTS}
    return _condition(status, ConditionType.READY).reason in vague


def _condition(status: Status, kind: ConditionType) -> Condition:
    return next(condition for condition in status.conditions if condition.type == kind)


def rejected(generation: int, error: SdServiceError, previous: Status, now: datetime) -> Status:
    """The status of a resource that cannot be acted on; what it served before is left as it was reported."""
    reasons = {
        InvalidResource: Reason.INVALID,
        NameConflict: Reason.NAME_CONFLICT,
        KubeRayMissing: Reason.KUBERAY_MISSING,
        KubeRayTooOld: Reason.KUBERAY_TOO_OLD,
        Refused: Reason.REFUSED,
    }
    reason = reasons.get(type(error), Reason.REFUSED)
    verdict = Verdict("False", reason, str(error))
    verdicts = {ConditionType.READY: verdict, ConditionType.ACCEPTED: verdict}
    conditions = _conditions(verdicts, previous, generation, now)
    kept = tuple(c for c in previous.conditions if c.type not in verdicts)
    return previous.model_copy(update={"observed_generation": generation, "conditions": (*conditions, *kept)})


def _conditions(
    verdicts: dict[ConditionType, Verdict], previous: Status, generation: int, now: datetime
) -> tuple[Condition, ...]:
    before = {condition.type: condition for condition in previous.conditions}
    stamp = times.stamp(now)
    return tuple(
        Condition(
            type=kind.value,
            status=verdict.status,
            reason=verdict.reason.value,
            message=_clipped(verdict.message),
            last_transition_time=(
                before[kind].last_transition_time
                if kind in before and before[kind].status == verdict.status
                else stamp
            ),
            observed_generation=generation,
        )
        for kind, verdict in verdicts.items()
    )


def _clipped(message: str) -> str:
    return message if len(message) <= _MESSAGE_LIMIT else message[: _MESSAGE_LIMIT - 3] + "..."
