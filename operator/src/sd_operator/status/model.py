# SPDX-License-Identifier: Apache-2.0
"""`ModelAvailable`: the weights could be fetched and loaded (pure).

Told by replicas: one that runs has loaded the model, one that fails says why in Ray's message.
"""

from sd_operator.api.status import ModelStatus, Reason
from sd_operator.observe.application import known
from sd_operator.observe.effective_spec import Intent
from sd_operator.observe.snapshot import Observed
from sd_operator.observe.weights_gate import Fetching
from sd_operator.ray.replica_starts import StartReport
from sd_operator.ray.traceback import RuntimeProblem, runtime_problem
from sd_operator.status.condition_state import Verdict
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
"""Reasons why weights cannot be had or loaded."""


def model_problem(words: str) -> Verdict | None:
    """What is wrong with the model, if Ray's words tell of something wrong with it."""
    found = runtime_problem(words)
    return None if found is None else Verdict("False", _REASONS[found[0]], found[1])


def fetching_weights(found: Fetching) -> Verdict:
    """A condition about a change that waits for its weights; with the reason where they cannot be had."""
    problem = next(filter(None, map(model_problem, found.endings)), None)
    if problem is not None:
        message = f"The weights of the last change cannot be fetched, so it is not applied: {problem.message}"
        return Verdict("False", problem.reason, message)
    message = (
        f"The weights of the last change are fetched on {found.ready} of {found.matched} nodes. The change is applied when"
        " they are on all of them; what runs goes on."
    )
    if found.troubles:
        message += f" {found.troubles[0]}"
    return Verdict("False", Reason.WAITING_FOR_WEIGHTS, message)


def model_status(intent: Intent, observed: Observed) -> ModelStatus:
    """The weights in use, as the replica that started last reports them; before one does, by the spec."""
    report = _newest(observed, serving_cluster(observed))
    if report is None:
        return intent.model
    update: dict[str, str] = {"revision": report.revision} if report.revision else {}
    if report.batching:
        update["batching"] = report.batching
    return intent.model.model_copy(update=update)


def model_available(intent: Intent, observed: Observed) -> Verdict:
    """Whether the weights of this spec can be had; during an upgrade those of the cluster that comes up."""
    view = observed.ray_service
    cluster = view.pending if view and view.pending else serving_cluster(observed)
    application = known(observed, cluster)
    if is_suspended(intent, view):
        return Verdict("Unknown", Reason.SUSPENDED, "Nothing loads the model while suspended.")
    problem = model_problem(application.words)
    if problem is not None:
        return problem
    if application.model > 0:
        return _loaded(_newest(observed, cluster))
    if application.status == "RUNNING" and intent.low == 0:
        message = "No replica holds the model now; whether it loads shows with the next request."
        return Verdict("Unknown", Reason.MODEL_NOT_LOADED, message)
    if application.status == "RUNNING" and not application.counted:
        return Verdict(
            "True", Reason.MODEL_LOADED, "The replicas have started, so they have loaded the model."
        )
    return Verdict("Unknown", Reason.MODEL_LOADING, "No replica has loaded the model yet.")


def _loaded(report: StartReport | None) -> Verdict:
    """A replica runs; what it goes without, and what its libraries warned of."""
    message = "A replica has loaded the model."
    if report is not None and report.refused_loras:
        names, words = list(report.refused_loras), next(iter(report.refused_loras.values()))
        which = (
            f"the LoRA {names[0]}" if len(names) == 1 else f"{len(names)} LoRAs ({', '.join(names[:_SHOWN])})"
        )
        return Verdict("True", Reason.LORA_REFUSED, f"{message} It runs without {which}: {words}")
    if report is not None and report.warnings:
        more = len(report.warnings) - 1
        others = f" ({more} more in the log of the replica)" if more else ""
        return Verdict("True", Reason.LOADED_WITH_WARNINGS, f"{message} {report.warnings[0]}{others}")
    return Verdict("True", Reason.MODEL_LOADED, message)


def _newest(observed: Observed, cluster: str) -> StartReport | None:
    """The report of the replica of a cluster that started last, of those that have loaded the model."""
    reading = observed.serve.get(cluster)
    loaded = [each for each in (reading.starts.values() if reading else ()) if each.revision or each.batching]
    return max(loaded, key=lambda each: each.began, default=None)
