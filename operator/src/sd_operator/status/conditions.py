# SPDX-License-Identifier: Apache-2.0
"""The conditions beside `Ready` that the RayService tells of (pure)."""

import re

from sd_operator.api.status import Reason
from sd_operator.observe.effective_spec import Intent
from sd_operator.observe.snapshot import Observed, RayServiceView
from sd_operator.status.condition_state import Verdict


def accepted(intent: Intent, observed: Observed) -> Verdict:
    """`Accepted`: the spec is valid, KubeRay takes what it became, and the image is what it says."""
    view = observed.ray_service
    if view is not None and view.refused:
        return Verdict("False", Reason.KUBERAY_REFUSED, f"KubeRay refuses the RayService: {view.refused}")
    if observed.upgrade.kuberay_is_too_old:
        message = f"KubeRay {observed.upgrade.kuberay} runs here; install 1.7 or newer."
        return Verdict("False", Reason.KUBERAY_TOO_OLD, message)
    other = _other_ray(intent, observed)
    if other:
        message = (
            f"The image {intent.image} contains Ray {other}, and spec.image.rayVersion is {intent.ray_version}, from which"
            f" KubeRay derives its commands. The service runs as it is. Set spec.image.rayVersion: {other}, which starts a"
            f" new cluster, or use an image with Ray {intent.ray_version}."
        )
        return Verdict("False", Reason.RAY_VERSION_DIFFERS, message)
    return Verdict("True", Reason.ACCEPTED, "The spec is valid.")


def _other_ray(intent: Intent, observed: Observed) -> str:
    """The version of Ray that replicas of this spec report, where it is not the one that KubeRay is told; else empty."""
    # An active cluster that is behind was made from another spec.
    cluster = observed.pending or ("" if observed.upgrade.behind else observed.active)
    reading = observed.serve.get(cluster)
    told = sorted({each.ray for each in reading.starts.values()} - {""}) if reading else []
    wanted = _release(intent.ray_version)
    return next((each for each in told if wanted and _release(each) not in {"", wanted}), "")


def _release(version: str) -> str:
    """`2.60.0` of `2.60.0.post1`; empty where it is no version."""
    found = re.match(r"\d+[.]\d+[.]\d+", version)
    return found[0] if found else ""


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
