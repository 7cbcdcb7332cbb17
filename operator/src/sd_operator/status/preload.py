# SPDX-License-Identifier: Apache-2.0
"""`ImagesPreloaded`, and the counts behind it: which nodes hold which image, and what waits for that (pure)."""

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
    "Nothing is preloaded: imagePreload.mode is Disabled, or no worker group asks for GPUs or selects nodes by its"
    " nodeSelector or node affinity."
)
_SOUGHT_LIMIT = 500


def preload_status(
    effective: EffectiveSpec, snapshot: Snapshot, hold: Hold | None = None
) -> PreloadStatus | None:
    """Nodes and images, over all worker groups; None where nothing is preloaded.

    Args:
        effective: what is meant to run.
        snapshot: what was observed.
        hold: what waits for the images.
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
    """Images that still run somewhere, each once."""
    shown = {each.image for each in state.images}
    return (_image(each, 0) for each in state.former if each.image not in shown)


def warm_status(snapshot: Snapshot) -> WarmStatus | None:
    """Places for spare workers; None where none are kept."""
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
    """`ImagesPreloaded`: the images are on every node that may get a worker, and so is what still runs of former ones.

    Args:
        effective: what is meant to run.
        snapshot: what was observed.
        hold: what waits for the images.
    """
    if effective.suspend or not effective.preloads:
        return ConditionState("True", Reason.DISABLED, _NOTHING)
    state = snapshot.preload
    if state.hidden:
        return ConditionState("Unknown", Reason.IMAGES_UNSEEN, f"Whether nodes hold the images is not known: {state.hidden}.")  # fmt: skip
    found = _found(state)
    if hold is None:
        return _with_former(found, state)
    cause = f"{found.message.removesuffix('.')}."
    if not hold.is_over:
        # What was held a moment ago may be there by now; the next look lets it go.
        reason = found.reason if found.status == "False" else Reason.PULLING
        waits = ConditionState(
            "False", reason, f"{cause} The change waits for it; the deadline is {hold.until}."
        )
        return _with_former(waits, state)
    late = (
        f"Not on all matching nodes within {hold.seconds} s (imagePreload.timeoutSeconds), by {hold.until};"
        f" the change is held on. {cause}"
    )
    return _with_former(ConditionState("False", Reason.DEADLINE_EXCEEDED, late), state)


def _with_former(found: ConditionState, state: PreloadState) -> ConditionState:
    """The same, and what became of images that a cluster still runs."""
    told = [_former_told(each) for each in state.former if each.matched]
    if not told:
        return found
    message = " ".join([found.message, *told])
    lost = next((each.problems[0].reason for each in state.former if each.problems), None)
    if found.status == "True" and lost is not None:
        return ConditionState("False", lost, message)
    return ConditionState(found.status, found.reason, message)


def _former_told(image: ImageState) -> str:
    count = f"Image {image.image}, which a cluster still runs, is kept on {len(image.ready)}/{len(image.matched)} nodes"
    return f"{count}: {_told(image.problems)}." if image.problems else f"{count}."


def waiting_for_images(hold: Hold) -> ConditionState:
    """A condition about a change that waits as a whole for its image."""
    more = f"until {hold.until}" if not hold.is_over else f"although {hold.until} is over"
    message = f"The change waits as a whole for its image to be on all matching nodes, {more}; ImagesPreloaded tells more."
    return ConditionState("False", Reason.WAITING_FOR_IMAGES, message)


def _found(state: PreloadState) -> ConditionState:
    if state.problems:
        return ConditionState("False", state.problems[0].reason, _told(state.problems))
    if not state.settled:
        return ConditionState("False", Reason.PULLING, "The nodes for the images of now are not counted yet.")
    if not state.nodes_matched:
        return ConditionState("True", Reason.NO_MATCHING_NODES, _no_nodes(state))
    what = "All images are" if len(state.images) > 1 else "The image is"
    nodes = f"{what} on {state.nodes_ready}/{state.nodes_matched} matching nodes"
    unknown = len(frozenset[str]().union(*(each.unknown for each in state.images)))
    if state.nodes_ready + unknown < state.nodes_matched:
        return ConditionState("False", Reason.PULLING, f"{nodes}{_missing(state)}.")
    if unknown:
        message = f"{nodes}; {unknown} do not tell: a node lists its largest images only, and none at first."
        return ConditionState("Unknown", Reason.IMAGES_UNSEEN, message)
    several = [each.image for each in state.images if each.digests > 1]
    versions = (
        f" Nodes hold different versions of {several[0]}: set a digest, or a tag that never moves."
        if several
        else ""
    )
    return ConditionState(
        "True", Reason.IMAGES_PRESENT, f"{what} on all {state.nodes_matched} matching nodes.{versions}"
    )


def _missing(state: PreloadState) -> str:
    """Which nodes are waited for, and what they do; the first of them by name."""
    unnamed = state.unmade - len(state.unmade_on)
    told = [*state.waiting[:_NODES_NAMED]]
    if len(state.waiting) > _NODES_NAMED:
        told.append(f"and {len(state.waiting) - _NODES_NAMED} more")
    if unnamed > 0:
        told.append(f"{unnamed} have no preload pod yet")
    return f"; {', '.join(told)}" if told else ""


def _no_nodes(state: PreloadState) -> str:
    """Which nodes were looked for, and what a person can do where the labels are the operator's choice."""
    sought = "; or ".join(filter(None, state.sought))
    sought = sought if len(sought) <= _SOUGHT_LIMIT else f"{sought[:_SOUGHT_LIMIT]}..."
    message = f"No node that is ready has {sought}." if sought else "No node matches the worker groups now."
    if state.unlabelled:
        names = ", ".join(state.unlabelled[:_NODES_NAMED])
        more = len(state.unlabelled) - _NODES_NAMED
        message += f" GPUs of this kind are on {names}{f' and {more} more' if more > 0 else ''}."
    if not state.by_gpu_labels:
        return f"{message} The image is preloaded as soon as one comes."
    return (
        f"{message} Give the worker group a nodeSelector, or have the operator know the label of your GPU nodes"
        " (SDSERVICE_GPU_NODE_LABELS; preload.gpuNodeLabels of the chart)."
    )


def _image(image: ImageState, unmade: int) -> ImageStatus:
    versions = f"{image.digests} different digests on the nodes" if image.digests > 1 else ""
    message = _told(image.problems) if image.problems else versions
    return ImageStatus(
        image=image.image,
        digest=image.digest or None,
        nodes_ready=len(image.ready),
        nodes_matched=len(image.matched) + unmade,
        nodes_unknown=len(image.unknown),
        message=excerpt(message, _TEXT_LIMIT) or None,
    )


def _told(problems: tuple[PodProblem, ...]) -> str:
    more = len({each.subject for each in problems} - {problems[0].subject})
    return f"{problems[0]} (and {more} more)" if more else str(problems[0])
