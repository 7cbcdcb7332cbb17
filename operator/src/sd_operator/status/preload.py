# SPDX-License-Identifier: Apache-2.0
"""`ImagesPreloaded` and the counts behind it: which nodes hold which image, and which change is on hold (pure)."""

from collections.abc import Iterator

from sd_operator.api.status import ImageStatus, PreloadStatus, Reason, WarmStatus
from sd_operator.excerpts import excerpt
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.observe.image_gate import Hold
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.preload_state import ImageState, PreloadState
from sd_operator.observe.snapshot import Snapshot
from sd_operator.status.condition_state import ConditionState

_TEXT_LIMIT = 1024
_NODES_NAMED = 3
_NOTHING = (
    "Nothing is preloaded: imagePreload.mode is Disabled, or no worker group requests GPUs or selects nodes by"
    " nodeSelector or node affinity."
)
_SOUGHT_LIMIT = 500


def preload_status(
    effective: EffectiveSpec, snapshot: Snapshot, hold: Hold | None = None
) -> PreloadStatus | None:
    """Counts of nodes and images over all worker groups; None if nothing is preloaded.

    Args:
        effective: the effective spec.
        snapshot: the observed state.
        hold: the hold on a change that waits for the images; None if no change waits.
    """
    state = snapshot.preload
    if effective.suspend or not effective.preloads:
        return None
    return PreloadStatus(
        nodes_ready=state.nodes_ready,
        nodes_matched=state.nodes_matched,
        summary=f"{state.nodes_ready}/{state.nodes_matched}",
        waiting_since=hold.since if hold else None,
        images=(*(_image(each, state.unmade) for each in state.images), *_former(state)),
    )


def _former(state: PreloadState) -> Iterator[ImageStatus]:
    """Images that the spec no longer uses and a cluster still runs, each once."""
    shown = {each.image for each in state.images}
    return (_image(each, 0) for each in state.former if each.image not in shown)


def warm_status(snapshot: Snapshot) -> WarmStatus | None:
    """Counts of the placeholder pods for spare workers; None if there are none."""
    view = snapshot.warm
    if view is None:
        return None
    return WarmStatus(
        ready=view.ready,
        desired=view.desired,
        summary=f"{view.ready}/{view.desired}",
        message=excerpt(view.words, _TEXT_LIMIT) or None,
    )


def preloaded(effective: EffectiveSpec, snapshot: Snapshot, hold: Hold | None = None) -> ConditionState:
    """`ImagesPreloaded`: current images, and former images that still run, are on every node that may get a worker.

    Args:
        effective: the effective spec.
        snapshot: the observed state.
        hold: the hold on a change that waits for the images; None if no change waits.
    """
    if effective.suspend or not effective.preloads:
        return ConditionState("True", Reason.DISABLED, _NOTHING)
    state = snapshot.preload
    if state.hidden:
        return ConditionState("Unknown", Reason.IMAGES_UNSEEN, f"The operator cannot see which nodes have the images: {state.hidden}.")  # fmt: skip
    found = _found(state)
    if hold is None:
        return _with_former(found, state)
    cause = f"{found.message.removesuffix('.')}."
    if not hold.is_over:
        # The images may have arrived a moment ago; the next pass releases the change.
        reason = found.reason if found.status == "False" else Reason.PULLING
        waits = ConditionState(
            "False",
            reason,
            f"{cause} The change stays on hold until the image is on all matching nodes; the deadline is {hold.until}.",
        )
        return _with_former(waits, state)
    late = (
        f"The images did not reach all matching nodes within {hold.seconds} s (imagePreload.timeoutSeconds), by"
        f" {hold.until}. The change stays on hold. {cause}"
    )
    return _with_former(ConditionState("False", Reason.DEADLINE_EXCEEDED, late), state)


def _with_former(found: ConditionState, state: PreloadState) -> ConditionState:
    """The same state, with a sentence for each former image that a cluster still runs."""
    sentences = [_former_sentence(each) for each in state.former if each.matched]
    if not sentences:
        return found
    message = " ".join([found.message, *sentences])
    lost = next((each.problems[0].reason for each in state.former if each.problems), None)
    if found.status == "True" and lost is not None:
        return ConditionState("False", lost, message)
    return ConditionState(found.status, found.reason, message)


def _former_sentence(image: ImageState) -> str:
    count = f"Image {image.image}, which a cluster still runs, is on {len(image.ready)}/{len(image.matched)} nodes"
    return f"{count}: {_described(image.problems)}." if image.problems else f"{count}."


def waiting_for_images(hold: Hold) -> ConditionState:
    """The state of a condition while a change waits for its image."""
    deadline = f"The deadline {hold.until} has passed" if hold.is_over else f"The deadline is {hold.until}"
    message = (
        f"The whole change is on hold until its image is on all matching nodes. {deadline}."
        " ImagesPreloaded shows the progress."
    )
    return ConditionState("False", Reason.WAITING_FOR_IMAGES, message)


def _found(state: PreloadState) -> ConditionState:
    if state.problems:
        return ConditionState("False", state.problems[0].reason, _described(state.problems))
    if not state.settled:
        message = "The operator is waiting for the DaemonSet controller to observe the current images."
        return ConditionState("False", Reason.PULLING, message)
    if not state.nodes_matched:
        return ConditionState("True", Reason.NO_MATCHING_NODES, _no_nodes(state))
    what = "All images are" if len(state.images) > 1 else "The image is"
    nodes = f"{what} on {state.nodes_ready}/{state.nodes_matched} matching nodes"
    unknown = len(frozenset[str]().union(*(each.unknown for each in state.images)))
    if state.nodes_ready + unknown < state.nodes_matched:
        return ConditionState("False", Reason.PULLING, f"{nodes}{_missing(state)}.")
    if unknown:
        message = f"{nodes}; {unknown} more cannot be checked, because a kubelet lists only its largest images, and none at first."
        return ConditionState("Unknown", Reason.IMAGES_UNSEEN, message)
    several = [each.image for each in state.images if each.digests > 1]
    versions = (
        f" Nodes have different versions of {several[0]}. Set a digest, or a tag that never changes."
        if several
        else ""
    )
    return ConditionState(
        "True", Reason.IMAGES_PRESENT, f"{what} on all {state.nodes_matched} matching nodes.{versions}"
    )


def _missing(state: PreloadState) -> str:
    """A clause about the nodes that do not hold the images yet and what they are doing; names the first of them."""
    unnamed = state.unmade - len(state.unmade_on)
    parts = [*state.waiting[:_NODES_NAMED]]
    if len(state.waiting) > _NODES_NAMED:
        parts.append(f"and {len(state.waiting) - _NODES_NAMED} more")
    if unnamed > 0:
        parts.append(f"{unnamed} {'has' if unnamed == 1 else 'have'} no preload pod yet")
    return f"; {', '.join(parts)}" if parts else ""


def _no_nodes(state: PreloadState) -> str:
    """Which nodes would match, and what a person can do if the operator chose the labels."""
    sought = "; or ".join(filter(None, state.sought))
    sought = sought if len(sought) <= _SOUGHT_LIMIT else f"{sought[:_SOUGHT_LIMIT]}..."
    message = f"No ready node has {sought}." if sought else "No node matches the worker groups now."
    if state.unlabelled:
        names = ", ".join(state.unlabelled[:_NODES_NAMED])
        more = len(state.unlabelled) - _NODES_NAMED
        message += f" GPUs of this kind are on {names}{f' and {more} more' if more > 0 else ''}."
    if not state.by_gpu_labels:
        return f"{message} The image is preloaded as soon as a matching node joins."
    return (
        f"{message} Set a nodeSelector on the worker group, or add the label of your GPU nodes to"
        " SDSERVICE_GPU_NODE_LABELS (preload.gpuNodeLabels of the chart)."
    )


def _image(image: ImageState, unmade: int) -> ImageStatus:
    versions = f"The nodes have {image.digests} different digests of this image." if image.digests > 1 else ""
    message = _described(image.problems) if image.problems else versions
    return ImageStatus(
        image=image.image,
        digest=image.digest or None,
        nodes_ready=len(image.ready),
        nodes_matched=len(image.matched) + unmade,
        nodes_unknown=len(image.unknown),
        message=excerpt(message, _TEXT_LIMIT) or None,
    )


def _described(problems: tuple[PodProblem, ...]) -> str:
    more = len({each.subject for each in problems} - {problems[0].subject})
    return f"{problems[0]} (and {more} more)" if more else str(problems[0])
