# SPDX-License-Identifier: Apache-2.0
"""The conditions beside `Ready` that the RayService tells of (pure)."""

from sd_operator.api.status import Reason
from sd_operator.intent import Intent
from sd_operator.observed import Observed, RayServiceView
from sd_operator.status.verdict import Verdict


def accepted(observed: Observed) -> Verdict:
    """`Accepted`: the spec is valid, and KubeRay takes what it became."""
    view = observed.ray_service
    if view is not None and view.refused:
        return Verdict("False", Reason.KUBERAY_REFUSED, f"KubeRay refuses the RayService: {view.refused}")
    if observed.upgrade.kuberay_is_too_old:
        message = f"KubeRay {observed.upgrade.kuberay} runs here; install 1.7 or newer."
        return Verdict("False", Reason.KUBERAY_TOO_OLD, message)
    return Verdict("True", Reason.ACCEPTED, "The spec is valid.")


def is_suspended(intent: Intent, view: RayServiceView | None) -> bool:
    """Whether nothing runs or nothing is to run: the spec says so, or KubeRay is at it, which it finishes once begun."""
    return intent.suspend or (view is not None and (view.suspended or view.suspending))


def suspended(intent: Intent, observed: Observed) -> Verdict:
    """`Suspended`: all pods are given back."""
    view = observed.ray_service
    if view is not None and view.suspended:
        return Verdict("True", Reason.SUSPENDED, "All pods are given back.")
    if is_suspended(intent, view):
        return Verdict("False", Reason.SUSPENDING, "Pods are being given back.")
    return Verdict("False", Reason.RUNNING, "The service is meant to run.")
