# SPDX-License-Identifier: Apache-2.0
"""The conditions `Accepted` and `Suspended`, computed from the RayService (pure)."""

import re

from sd_operator.api.status import Reason
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.observe.snapshot import RayServiceView, Snapshot
from sd_operator.status.condition_state import ConditionState


def accepted(effective: EffectiveSpec, snapshot: Snapshot) -> ConditionState:
    """`Accepted`: the spec is valid, KubeRay accepts its RayService, and the image contains the Ray version of the spec."""
    view = snapshot.ray_service
    if view is not None and view.refused:
        return ConditionState(
            "False", Reason.KUBERAY_REFUSED, f"KubeRay refuses the RayService: {view.refused}"
        )
    if snapshot.upgrade.kuberay_is_too_old:
        message = f"This cluster runs KubeRay {snapshot.upgrade.kuberay}, which is too old. Install KubeRay 1.7 or newer."
        return ConditionState("False", Reason.KUBERAY_TOO_OLD, message)
    other = _other_ray(effective, snapshot)
    if other:
        message = (
            f"The image {effective.image} contains Ray {other}, but spec.image.rayVersion is {effective.ray_version}. KubeRay"
            " derives its commands from spec.image.rayVersion. The service keeps running as it is. Set"
            f" spec.image.rayVersion: {other}, which starts a new cluster, or use an image with Ray {effective.ray_version}."
        )
        return ConditionState("False", Reason.RAY_VERSION_DIFFERS, message)
    return ConditionState("True", Reason.ACCEPTED, "The spec is valid.")


def _other_ray(effective: EffectiveSpec, snapshot: Snapshot) -> str:
    """The Ray version that replicas of this spec report if it differs from the spec's version; empty if it does not."""
    # An active cluster that is behind was created from another spec.
    cluster = snapshot.pending or ("" if snapshot.upgrade.behind else snapshot.active)
    reading = snapshot.serve.get(cluster)
    reported = sorted({each.ray for each in reading.starts.values()} - {""}) if reading else []
    desired = _release(effective.ray_version)
    return next((each for each in reported if desired and _release(each) not in {"", desired}), "")


def _release(version: str) -> str:
    """The release part of a version: `2.60.0` of `2.60.0.post1`; empty if the text is not a version."""
    found = re.match(r"\d+[.]\d+[.]\d+", version)
    return found[0] if found else ""


def is_suspended(effective: EffectiveSpec, view: RayServiceView | None) -> bool:
    """Whether the service is suspended or about to be: by its spec, or because KubeRay is suspending it.

    KubeRay always finishes a suspension that it has started.
    """
    return effective.suspend or (view is not None and (view.suspended or view.suspending))


def suspended(effective: EffectiveSpec, snapshot: Snapshot) -> ConditionState:
    """`Suspended`: all pods have been removed."""
    view = snapshot.ray_service
    if view is not None and view.suspended:
        return ConditionState("True", Reason.SUSPENDED, "All pods have been removed.")
    if is_suspended(effective, view):
        return ConditionState("False", Reason.SUSPENDING, "KubeRay is removing the pods.")
    return ConditionState("False", Reason.RUNNING, "The service is not suspended.")
