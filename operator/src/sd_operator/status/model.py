# SPDX-License-Identifier: Apache-2.0
"""`ModelAvailable`: the weights could be fetched and loaded (pure).

The replicas show it: a running replica has loaded the model, and a failed replica gives the reason in Ray's message.
"""

from sd_operator.api.status import ModelStatus, Reason
from sd_operator.observe.application import known
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.observe.snapshot import Snapshot
from sd_operator.observe.weights_gate import Fetching
from sd_operator.ray.replica_starts import StartReport
from sd_operator.ray.traceback import RuntimeProblem, runtime_problem
from sd_operator.status.condition_state import ConditionState
from sd_operator.status.conditions import is_suspended
from sd_operator.status.counts import serving_cluster

_REASONS = {
    RuntimeProblem.NOT_FOUND: Reason.MODEL_NOT_FOUND,
    RuntimeProblem.FORBIDDEN: Reason.MODEL_FORBIDDEN,
    RuntimeProblem.UNAVAILABLE: Reason.MODEL_UNAVAILABLE,
    RuntimeProblem.CONFIG: Reason.MODEL_INVALID,
    RuntimeProblem.INVALID: Reason.MODEL_INVALID,
}

_SHOWN = 5

MODEL_PROBLEMS = frozenset(_REASONS.values())
"""Reasons why weights cannot be fetched or loaded."""


def model_problem(words: str) -> ConditionState | None:
    """The problem with the model that Ray's message contains; None if it contains none."""
    found = runtime_problem(words)
    return None if found is None else ConditionState("False", _REASONS[found[0]], found[1])


def fetching_weights(found: Fetching) -> ConditionState:
    """The state of a condition while a change waits for its weights, or the reason why they cannot be fetched."""
    problem = next(filter(None, map(model_problem, found.endings)), None)
    if problem is not None:
        message = f"The weights of the last change cannot be fetched, so the change is not applied: {problem.message}"
        return ConditionState("False", problem.reason, message)
    message = (
        f"The weights of the last change are on {found.ready} of {found.matched} nodes. The change is applied when they are"
        " on all of these nodes. The running replicas stay unchanged until then."
    )
    if found.problems:
        message += f" {found.problems[0]}"
    return ConditionState("False", Reason.WAITING_FOR_WEIGHTS, message)


def model_status(effective: EffectiveSpec, snapshot: Snapshot) -> ModelStatus:
    """The weights in use, as the replica that started last reports them; those of the spec before the first report."""
    report = _newest(snapshot, serving_cluster(snapshot))
    if report is None:
        return effective.model
    update: dict[str, str] = {"revision": report.revision} if report.revision else {}
    if report.batching:
        update["batching"] = report.batching
    return effective.model.model_copy(update=update)


def model_available(effective: EffectiveSpec, snapshot: Snapshot) -> ConditionState:
    """Whether the weights of this spec can be fetched and loaded; during an upgrade, by the pending cluster."""
    view = snapshot.ray_service
    cluster = view.pending if view and view.pending else serving_cluster(snapshot)
    application = known(snapshot, cluster)
    if is_suspended(effective, view):
        return ConditionState(
            "Unknown", Reason.SUSPENDED, "The service is suspended, so no replica loads the model."
        )
    problem = model_problem(application.words)
    if problem is not None:
        return problem
    if application.model > 0:
        return _loaded(_newest(snapshot, cluster))
    if application.status == "RUNNING" and effective.low == 0:
        message = "No replica runs now. The next request shows whether the model loads."
        return ConditionState("Unknown", Reason.MODEL_NOT_LOADED, message)
    if application.status == "RUNNING" and not application.counted:
        return ConditionState(
            "True", Reason.MODEL_LOADED, "The replicas have started, so they have loaded the model."
        )
    return ConditionState("Unknown", Reason.MODEL_LOADING, "No replica has loaded the model yet.")


def _loaded(report: StartReport | None) -> ConditionState:
    """The state once a replica runs: with the LoRAs that it could not load, or a warning of its libraries."""
    message = "A replica has loaded the model."
    if report is not None and report.refused_loras:
        names, words = list(report.refused_loras), next(iter(report.refused_loras.values()))
        which = (
            f"the LoRA {names[0]}" if len(names) == 1 else f"{len(names)} LoRAs ({', '.join(names[:_SHOWN])})"
        )
        return ConditionState(
            "True", Reason.LORA_REFUSED, f"{message} The replica runs without {which}: {words}"
        )
    if report is not None and report.warnings:
        more = len(report.warnings) - 1
        others = f" ({more} more in the log of the replica)" if more else ""
        return ConditionState("True", Reason.LOADED_WITH_WARNINGS, f"{message} {report.warnings[0]}{others}")
    return ConditionState("True", Reason.MODEL_LOADED, message)


def _newest(snapshot: Snapshot, cluster: str) -> StartReport | None:
    """The start report of the replica that started last, among those of a cluster that have loaded the model."""
    reading = snapshot.serve.get(cluster)
    loaded = [each for each in (reading.starts.values() if reading else ()) if each.revision or each.batching]
    return max(loaded, key=lambda each: each.began, default=None)
