# SPDX-License-Identifier: Apache-2.0
"""The conditions beside `Ready` that the RayService and the preload tell of (pure)."""

from sd_operator.api.status import Reason
from sd_operator.intent import Intent
from sd_operator.observed import Observed
from sd_operator.status.counts import preload_counts
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


def preloaded(intent: Intent, observed: Observed) -> Verdict:
    """`ImagesPreloaded`: the image is on every node that may get a worker."""
    if intent.suspend or not intent.preloads:
        return Verdict("True", Reason.DISABLED, "There is nothing to preload.")
    counts = preload_counts(intent, observed)
    if observed.preload_troubles:
        trouble = observed.preload_troubles[0]
        return Verdict("False", trouble.reason, str(trouble))
    if counts is None or counts.nodes_matched == 0:
        return Verdict("True", Reason.NO_MATCHING_NODES, "No node matches the worker groups now.")
    if counts.nodes_ready < counts.nodes_matched:
        return Verdict("False", Reason.PULLING, f"The image is on {counts.summary} matching nodes.")
    return Verdict(
        "True", Reason.IMAGES_PRESENT, f"The image is on all {counts.nodes_matched} matching nodes."
    )


def suspended(intent: Intent, observed: Observed) -> Verdict:
    """`Suspended`: all pods are given back."""
    view = observed.ray_service
    if view is not None and view.suspended:
        return Verdict("True", Reason.SUSPENDED, "All pods are given back.")
    if intent.suspend:
        return Verdict("False", Reason.SUSPENDING, "Pods are being given back.")
    return Verdict("False", Reason.RUNNING, "The service is meant to run.")
