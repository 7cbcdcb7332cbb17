# SPDX-License-Identifier: Apache-2.0
"""`ImagesPreloaded`, and the counts behind it: which nodes hold which image, and what waits for that (pure)."""

from sd_operator.api.status import ImageStatus, PreloadStatus, Reason, WarmStatus
from sd_operator.excerpts import excerpt
from sd_operator.intent import Intent
from sd_operator.observed import Observed
from sd_operator.preload_gate import Hold
from sd_operator.preload_state import ImageState, PreloadState
from sd_operator.status.verdict import Verdict
from sd_operator.trouble import Trouble

_TEXT_LIMIT = 1024


def preload_status(intent: Intent, observed: Observed) -> PreloadStatus | None:
    """Nodes and images, over all worker groups; None where nothing is preloaded."""
    state = observed.preload
    if intent.suspend or not intent.preloads:
        return None
    return PreloadStatus(
        nodes_ready=state.nodes_ready,
        nodes_matched=state.nodes_matched,
        summary=f"{state.nodes_ready}/{state.nodes_matched}",
        images=tuple(_image(each, state) for each in state.images),
    )


def warm_status(observed: Observed) -> WarmStatus | None:
    """Places for spare workers; None where none are kept."""
    view = observed.warm
    if view is None:
        return None
    return WarmStatus(
        ready=view.ready,
        desired=view.desired,
        summary=f"{view.ready}/{view.desired}",
        message=excerpt(view.words, _TEXT_LIMIT) or None,
    )


def preloaded(intent: Intent, observed: Observed, hold: Hold | None = None) -> Verdict:
    """`ImagesPreloaded`: the images are on every node that may get a worker.

    Args:
        intent: what is meant to run.
        observed: what was observed.
        hold: what waits for the images.
    """
    if intent.suspend or not intent.preloads:
        return Verdict("True", Reason.DISABLED, "There is nothing to preload.")
    state = observed.preload
    if state.hidden:
        return Verdict("Unknown", Reason.IMAGES_UNSEEN, f"Whether nodes hold the images is not known: {state.hidden}.")  # fmt: skip
    found = _found(state)
    if hold is None:
        return found
    cause = f"{found.message.removesuffix('.')}."
    if not hold.is_over:
        # What was held a moment ago may be there by now; the next look lets it go.
        reason = found.reason if found.status == "False" else Reason.PULLING
        return Verdict("False", reason, f"{cause} The change waits for it; the deadline is {hold.until}.")
    late = (
        f"Not on all matching nodes within {hold.seconds} s (imagePreload.timeoutSeconds), by {hold.until};"
        f" the change is held on. {cause}"
    )
    return Verdict("False", Reason.DEADLINE_EXCEEDED, late)


def waiting_for_images(hold: Hold) -> Verdict:
    """A condition about a change that waits as a whole for its image."""
    more = f"until {hold.until}" if not hold.is_over else f"although {hold.until} is over"
    message = f"The change waits as a whole for its image to be on all matching nodes, {more}; ImagesPreloaded tells more."
    return Verdict("False", Reason.WAITING_FOR_IMAGES, message)


def _found(state: PreloadState) -> Verdict:
    if state.troubles:
        return Verdict("False", state.troubles[0].reason, _told(state.troubles))
    if not state.settled:
        return Verdict("False", Reason.PULLING, "The nodes for the images of now are not counted yet.")
    if not state.nodes_matched:
        return Verdict("True", Reason.NO_MATCHING_NODES, "No node matches the worker groups now.")
    what = "All images are" if len(state.images) > 1 else "The image is"
    nodes = f"{what} on {state.nodes_ready}/{state.nodes_matched} matching nodes"
    unknown = len(frozenset[str]().union(*(each.unknown for each in state.images)))
    if state.nodes_ready + unknown < state.nodes_matched:
        missing = f"; {state.unmade} have no preload pod yet" if state.unmade else ""
        return Verdict("False", Reason.PULLING, f"{nodes}{missing}.")
    if unknown:
        message = f"{nodes}; {unknown} do not tell: a node lists its largest images only, and none at first."
        return Verdict("Unknown", Reason.IMAGES_UNSEEN, message)
    several = [each.image for each in state.images if each.digests > 1]
    differs = (
        f" Nodes hold different versions of {several[0]}: set a digest, or a tag that never moves."
        if several
        else ""
    )
    return Verdict(
        "True", Reason.IMAGES_PRESENT, f"{what} on all {state.nodes_matched} matching nodes.{differs}"
    )


def _image(image: ImageState, state: PreloadState) -> ImageStatus:
    versions = f"{image.digests} different digests on the nodes" if image.digests > 1 else ""
    message = _told(image.troubles) if image.troubles else versions
    return ImageStatus(
        image=image.image,
        digest=image.digest or None,
        nodes_ready=len(image.ready),
        nodes_matched=len(image.matched) + state.unmade,
        nodes_unknown=len(image.unknown),
        message=excerpt(message, _TEXT_LIMIT) or None,
    )


def _told(troubles: tuple[Trouble, ...]) -> str:
    more = len({each.subject for each in troubles} - {troubles[0].subject})
    return f"{troubles[0]} (and {more} more)" if more else str(troubles[0])
