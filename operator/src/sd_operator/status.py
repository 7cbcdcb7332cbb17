# SPDX-License-Identifier: Apache-2.0
"""Spec and observation become status: computed anew each time, so nothing changed means nothing to write (pure).

`Ready` is stricter than KubeRay's, which only counts endpoints: it stays True while the application is
DEPLOY_FAILED or the head is gone. Ours is a chain of checks; the first that finds something speaks.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sd_operator import naming
from sd_operator.api import Condition, Resource, Spec, Status
from sd_operator.api.spec import replicas_per_worker
from sd_operator.api.status import (
    ConditionType,
    ModelStatus,
    PreloadStatus,
    Reason,
    ReplicaStatus,
    WorkerStatus,
)
from sd_operator.errors import InvalidResource, KubeRayMissing, NameConflict, Refused, SdServiceError
from sd_operator.observed import Observed, PodView, RayServiceView

_MESSAGE_LIMIT = 1024


@dataclass(frozen=True)
class Verdict:
    """One condition without its history."""

    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str


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
        ConditionType.READY: _ready(spec, observed),
        ConditionType.ACCEPTED: _accepted(observed),
        ConditionType.IMAGES_PRELOADED: _preloaded(spec, observed),
        ConditionType.CONFIG_APPLIED: _config_applied(spec, observed),
        ConditionType.UPGRADING: _upgrading(observed),
        ConditionType.SUSPENDED: _suspended(spec, observed),
    }
    source = spec.source()
    view = observed.ray_service
    return Status(
        observed_generation=resource.generation,
        conditions=_conditions(verdicts, previous, resource.generation, now),
        url=naming.serve_url(resource.name, resource.namespace),
        replicas=_replicas(spec, observed),
        selector=f"{naming.NAME_LABEL}={resource.name},ray.io/node-type=worker",
        workers=_workers(spec, observed),
        preload=_preload_counts(spec, observed),
        model=ModelStatus(uri=source.uri or "", revision=source.revision),
        image=image,
        ray_service=resource.name if view else None,
        active_ray_cluster=(view.active or None) if view else None,
    )


def rejected(generation: int, error: SdServiceError, previous: Status, now: datetime) -> Status:
    """The status of a resource that cannot be acted on; what it served before is left as it was reported."""
    reasons = {
        InvalidResource: Reason.INVALID,
        NameConflict: Reason.NAME_CONFLICT,
        KubeRayMissing: Reason.KUBERAY_MISSING,
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
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
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


# Ready: each check returns a verdict, or None when it has nothing to say.


def _ready(spec: Spec, observed: Observed) -> Verdict:
    checks: Iterable[Callable[[Spec, Observed, RayServiceView], Verdict | None]] = (
        _is_suspended,
        _is_refused,
        _is_starting,
        _has_no_head,
        _has_failed,
        _has_no_endpoints,
        _is_at_zero,
    )
    view = observed.ray_service
    if view is None:
        return Verdict("False", Reason.CREATING, "The RayService does not exist yet.")
    for check in checks:
        verdict = check(spec, observed, view)
        if verdict is not None:
            return verdict
    return Verdict("True", Reason.SERVING, f"Serving from {view.active}.")


def _is_suspended(spec: Spec, _: Observed, view: RayServiceView) -> Verdict | None:
    if spec.suspend or view.suspended or view.suspending:
        return Verdict("False", Reason.SUSPENDED, "Suspended; set suspend: false to start again.")
    return None


def _is_refused(_: Spec, __: Observed, view: RayServiceView) -> Verdict | None:
    if view.refused:
        return Verdict("False", Reason.KUBERAY_REFUSED, f"KubeRay refuses the RayService: {view.refused}")
    return None


def _is_starting(_: Spec, __: Observed, view: RayServiceView) -> Verdict | None:
    if view.active:
        return None
    if not view.pending:
        return Verdict(
            "False", Reason.STARTING, f"Waiting for KubeRay to make a RayCluster since {view.since}."
        )
    application = view.pending_application
    state = f"; the application is {application.status}" if application.status else ""
    detail = f": {application.message}" if application.message else ""
    return Verdict(
        "False", Reason.STARTING, f"RayCluster {view.pending} is starting since {view.since}{state}{detail}."
    )


def _has_no_head(_: Spec, observed: Observed, view: RayServiceView) -> Verdict | None:
    if any(pod.is_head and pod.ready for pod in _pods_of(observed, view.active)):
        return None
    return Verdict("False", Reason.HEAD_NOT_READY, f"The head pod of {view.active} is gone or not ready.")


def _has_failed(_: Spec, __: Observed, view: RayServiceView) -> Verdict | None:
    application = view.active_application
    reasons = {"DEPLOY_FAILED": Reason.APPLICATION_FAILED, "UNHEALTHY": Reason.APPLICATION_UNHEALTHY}
    if application.status not in reasons:
        return None
    message = f"The Serve application is {application.status}: {application.message or 'Ray gives no reason'}"
    return Verdict("False", reasons[application.status], message)


def _has_no_endpoints(_: Spec, __: Observed, view: RayServiceView) -> Verdict | None:
    if view.endpoints > 0:
        return None
    return Verdict("False", Reason.NO_ENDPOINTS, f"No pod takes requests since {view.since}.")


def _is_at_zero(spec: Spec, observed: Observed, view: RayServiceView) -> Verdict | None:
    if spec.replicas.min > 0 or any(pod.ready and not pod.is_head for pod in _pods_of(observed, view.active)):
        return None
    return Verdict(
        "True", Reason.SCALED_TO_ZERO, "At zero replicas; the next request waits for a worker to start."
    )


# The other conditions.


def _accepted(observed: Observed) -> Verdict:
    view = observed.ray_service
    if view is not None and view.refused:
        return Verdict("False", Reason.KUBERAY_REFUSED, f"KubeRay refuses the RayService: {view.refused}")
    return Verdict("True", Reason.ACCEPTED, "The spec is valid.")


def _preloaded(spec: Spec, observed: Observed) -> Verdict:
    if spec.suspend or spec.image_preload.mode == "Disabled":
        return Verdict("True", Reason.DISABLED, "There is nothing to preload.")
    counts = _preload_counts(spec, observed)
    if counts is None or counts.nodes_matched == 0:
        return Verdict("True", Reason.NO_MATCHING_NODES, "No node matches the worker groups now.")
    if counts.nodes_ready < counts.nodes_matched:
        return Verdict("False", Reason.PULLING, f"The image is on {counts.summary} matching nodes.")
    return Verdict(
        "True", Reason.IMAGES_PRESENT, f"The image is on all {counts.nodes_matched} matching nodes."
    )


def _config_applied(spec: Spec, observed: Observed) -> Verdict:
    view = observed.ray_service
    if view is None or spec.suspend or not view.up_to_date or not view.application.status:
        return Verdict(
            "False", Reason.APPLICATION_DEPLOYING, "The serving configuration is on its way to Ray."
        )
    application = view.application
    if application.status == "RUNNING" and view.active and not view.upgrading:
        return Verdict("True", Reason.APPLICATION_RUNNING, "Ray runs the configuration of this spec.")
    if application.status == "DEPLOY_FAILED":
        return Verdict("False", Reason.APPLICATION_FAILED, application.message or "Ray gives no reason.")
    return Verdict("False", Reason.APPLICATION_DEPLOYING, f"The Serve application is {application.status}.")


def _upgrading(observed: Observed) -> Verdict:
    view = observed.ray_service
    if view is None or not (view.upgrading and view.active and view.pending):
        return Verdict("False", Reason.UP_TO_DATE, "No second cluster is starting.")
    message = f"RayCluster {view.pending} is starting; {view.active} serves until it is ready."
    return Verdict("True", Reason.NEW_CLUSTER_STARTING, message)


def _suspended(spec: Spec, observed: Observed) -> Verdict:
    view = observed.ray_service
    if view is not None and view.suspended:
        return Verdict("True", Reason.SUSPENDED, "All pods are given back.")
    if spec.suspend:
        return Verdict("False", Reason.SUSPENDING, "Pods are being given back.")
    return Verdict("False", Reason.RUNNING, "The service is meant to run.")


# Counts.


def _pods_of(observed: Observed, cluster: str) -> list[PodView]:
    return [pod for pod in observed.pods if pod.cluster == cluster]


def _serving_cluster(observed: Observed) -> str:
    view = observed.ray_service
    return (view.active or view.pending) if view else ""


def _workers(spec: Spec, observed: Observed) -> tuple[WorkerStatus, ...]:
    pods = _pods_of(observed, _serving_cluster(observed))
    return tuple(
        WorkerStatus(
            group=group.name,
            ready=sum(pod.ready for pod in pods if pod.group == group.name),
            desired=sum(pod.group == group.name for pod in pods),
        )
        for group in spec.worker_groups
    )


def _replicas(spec: Spec, observed: Observed) -> ReplicaStatus:
    """Replicas by the workers that hold them: each worker is filled before another is asked for."""
    view = observed.ray_service
    workers = {each.group: each for each in _workers(spec, observed)}
    held = {group.name: replicas_per_worker(spec, group) for group in spec.worker_groups}
    running = view is not None and bool(view.active) and view.active_application.status in {"RUNNING", ""}
    ready = sum(workers[name].ready * count for name, count in held.items()) if running else 0
    asked = sum(workers[name].desired * count for name, count in held.items())
    low, high = spec.replicas.min, spec.replicas.max
    if spec.suspend:
        ready = asked = low = 0
    desired = min(max(asked, low), high)
    ready = min(ready, desired)
    return ReplicaStatus(
        ready=ready, desired=desired, min=low, max=high, summary=f"{ready}/{desired} ({low}-{high})"
    )


def _preload_counts(spec: Spec, observed: Observed) -> PreloadStatus | None:
    if spec.suspend or spec.image_preload.mode == "Disabled":
        return None
    ready = sum(each.nodes_ready for each in observed.preloads)
    matched = sum(each.nodes_matched for each in observed.preloads)
    return PreloadStatus(nodes_ready=ready, nodes_matched=matched, summary=f"{ready}/{matched}")
