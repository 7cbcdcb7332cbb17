# SPDX-License-Identifier: Apache-2.0
"""The conditions beside `Ready` that the RayService tells of (pure)."""

import re

from sd_operator.api.status import Reason
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.observe.snapshot import RayServiceView, Snapshot
from sd_operator.status.condition_state import ConditionState


def accepted(effective: EffectiveSpec, snapshot: Snapshot) -> ConditionState:
    """`Accepted`: the spec is valid, KubeRay takes what it became, and the image is what it says."""
    view = snapshot.ray_service
    if view is not None and view.refused:
        return ConditionState(
            "False", Reason.KUBERAY_REFUSED, f"KubeRay refuses the RayService: {view.refused}"
        )
    if snapshot.upgrade.kuberay_is_too_old:
        message = f"KubeRay {snapshot.upgrade.kuberay} runs here; install 1.7 or newer."
        return ConditionState("False", Reason.KUBERAY_TOO_OLD, message)
    other = _other_ray(effective, snapshot)
    if other:
        message = (
            f"The image {effective.image} contains Ray {other}, and spec.image.rayVersion is {effective.ray_version}, from which"
            f" KubeRay derives its commands. The service runs as it is. Set spec.image.rayVersion: {other}, which starts a"
            f" new cluster, or use an image with Ray {effective.ray_version}."
        )
        return ConditionState("False", Reason.RAY_VERSION_DIFFERS, message)
    return ConditionState("True", Reason.ACCEPTED, "The spec is valid.")


def _other_ray(effective: EffectiveSpec, snapshot: Snapshot) -> str:
    """The version of Ray that replicas of this spec report, where it is not the one that KubeRay is told; else empty."""
    # An active cluster that is behind was made from another spec.
    cluster = snapshot.pending or ("" if snapshot.upgrade.behind else snapshot.active)
    reading = snapshot.serve.get(cluster)
    told = sorted({each.ray for each in reading.starts.values()} - {""}) if reading else []
    wanted = _release(effective.ray_version)
    return next((each for each in told if wanted and _release(each) not in {"", wanted}), "")


def _release(version: str) -> str:
    """`2.60.0` of `2.60.0.post1`; empty where it is no version."""
    found = re.match(r"\d+[.]\d+[.]\d+", version)
    return found[0] if found else ""


def is_suspended(effective: EffectiveSpec, view: RayServiceView | None) -> bool:
    """Whether nothing runs or nothing is to run: the spec says so, or KubeRay is at it, which it finishes once begun."""
    return effective.suspend or (view is not None and (view.suspended or view.suspending))


def suspended(effective: EffectiveSpec, snapshot: Snapshot) -> ConditionState:
    """`Suspended`: all pods are given back."""
    view = snapshot.ray_service
    if view is not None and view.suspended:
        return ConditionState("True", Reason.SUSPENDED, "All pods are given back.")
    if is_suspended(effective, view):
        return ConditionState("False", Reason.SUSPENDING, "Pods are being given back.")
    return ConditionState("False", Reason.RUNNING, "The service is meant to run.")
