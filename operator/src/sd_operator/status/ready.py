# SPDX-License-Identifier: Apache-2.0
"""`Ready`: a chain of checks, stricter than KubeRay's own; the first that finds something speaks (pure).

KubeRay only counts endpoints: its Ready stays True while the application is DEPLOY_FAILED or the head is gone.
"""

from collections.abc import Callable, Iterable

from sd_operator.api import Spec
from sd_operator.api.status import Reason
from sd_operator.observed import Observed, RayServiceView
from sd_operator.status.counts import pods_of
from sd_operator.status.verdict import Verdict


def ready(spec: Spec, observed: Observed) -> Verdict:
    """Whether a request would be answered now."""
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
    if any(pod.is_head and pod.ready for pod in pods_of(observed, view.active)):
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
    if spec.replicas.min > 0 or any(pod.ready and not pod.is_head for pod in pods_of(observed, view.active)):
        return None
    return Verdict(
        "True", Reason.SCALED_TO_ZERO, "At zero replicas; the next request waits for a worker to start."
    )
