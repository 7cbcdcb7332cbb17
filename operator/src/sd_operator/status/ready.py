# SPDX-License-Identifier: Apache-2.0
"""`Ready`: a request would be answered now. A chain of checks; the first that finds something speaks (pure).

KubeRay only counts endpoints: its Ready stays True while the application is DEPLOY_FAILED or the head is gone.
Where Ray's own replica counts are known, they decide, whatever the application's status: replicas of the former
version serve on while a new one is built, rolled out or has failed, and one sick replica of several makes the whole
application UNHEALTHY. These flips are damped so:

- a dashboard that does not answer: what it told last counts for two minutes, and the message says how old it is;
- one replica, worker or pod of several that restarts: the others answer, so Ready stays True (Serving or Degraded);
- a head that misses its probe while its dashboard answers: requests go to the workers;
- Ray tells of no replica while workers are ready, since the head is gone or new, or since another version is built or
  could not be: the service itself is asked, and believed where it says that it would draw (Degraded);
- KubeRay counts no endpoint yet of a cluster that has just taken over: likewise (Serving).

Nothing delays bad news that is known: the last replica gone, a failed first deployment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sd_operator.api.status import Reason
from sd_operator.observe.application import Known, known
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.snapshot import PodView, RayServiceView, Snapshot, pods_of
from sd_operator.status.condition_state import ConditionState
from sd_operator.status.conditions import is_suspended
from sd_operator.status.model import model_problem
from sd_operator.status.schedulable import is_young, problems

_FAILED = {"DEPLOY_FAILED": Reason.APPLICATION_FAILED, "UNHEALTHY": Reason.APPLICATION_UNHEALTHY}


@dataclass(frozen=True)
class _Scene:
    """What the checks look at; `cluster` is the RayCluster that requests reach."""

    effective: EffectiveSpec
    snapshot: Snapshot
    view: RayServiceView
    cluster: str
    application: Known
    now: datetime

    @property
    def pods(self) -> list[PodView]:
        return pods_of(self.snapshot, self.cluster)

    def problem(self) -> PodProblem | None:
        """The first thing that keeps pods of the cluster from running."""
        return next(iter(problems(self.snapshot, self.cluster)), None)


def ready(effective: EffectiveSpec, snapshot: Snapshot, now: datetime) -> ConditionState:
    """Whether a request would be answered now."""
    view = snapshot.ray_service
    if view is None:
        return ConditionState("False", Reason.CREATING, "The RayService does not exist yet.")
    cluster = view.active or view.pending
    scene = _Scene(effective, snapshot, view, cluster, known(snapshot, cluster), now)
    state = _first(scene, _BEFORE_IT_SERVES)
    if state is not None:
        return state
    state = _first(scene, _WHILE_IT_SERVES) or _serving(scene)
    if snapshot.answers and state.status == "False":
        return ConditionState("True", Reason.DEGRADED, f"Replicas in {cluster} still answer. {state.message}")
    return state


def denied(effective: EffectiveSpec, snapshot: Snapshot, now: datetime) -> ConditionState | None:
    """What the spec, KubeRay and pods say against an answer, whatever Ray may report; None where nothing does."""
    view = snapshot.ray_service
    if view is None:
        return ConditionState("False", Reason.CREATING, "The RayService does not exist yet.")
    cluster = view.active or view.pending
    scene = _Scene(effective, snapshot, view, cluster, known(snapshot, cluster), now)
    return _first(scene, (*_BEFORE_IT_SERVES, _has_no_head, _has_no_endpoints))


def _is_suspended(scene: _Scene) -> ConditionState | None:
    if is_suspended(scene.effective, scene.view):
        return ConditionState("False", Reason.SUSPENDED, "Suspended; set suspend: false to start again.")
    return None


def _is_refused(scene: _Scene) -> ConditionState | None:
    """Before a first cluster. Later the refused change leaves what serves as it is; `Accepted` tells of it."""
    if scene.view.refused and not scene.view.active:
        return ConditionState(
            "False", Reason.KUBERAY_REFUSED, f"KubeRay refuses the RayService: {scene.view.refused}"
        )
    return None


def _is_starting(scene: _Scene) -> ConditionState | None:
    view = scene.view
    if view.active:
        return None
    if not view.pending:
        return ConditionState(
            "False", Reason.STARTING, f"Waiting for KubeRay to make a RayCluster since {view.since}."
        )
    starting = f"RayCluster {view.pending} is starting since {view.since}"
    return _blocked(scene, starting) or ConditionState(
        "False", Reason.STARTING, f"{starting}{_state(scene)}."
    )


def _has_no_head(scene: _Scene) -> ConditionState | None:
    heads = [pod for pod in scene.pods if pod.is_head]
    answers = scene.application.fresh and scene.application.serves
    if any(pod.ready for pod in heads) or (answers and any(pod.running for pod in heads)):
        return None
    missing = f"The head pod of {scene.cluster} is gone or not ready"
    problem = next((pod.problem for pod in heads if pod.problem), None)
    cluster_trouble = scene.snapshot.cluster_troubles.get(scene.cluster)
    told = problem or cluster_trouble
    return ConditionState("False", Reason.HEAD_NOT_READY, f"{missing}; {told}." if told else f"{missing}.")


def _has_no_replicas(scene: _Scene) -> ConditionState | None:
    """Serve's own counts. At zero on purpose a request is held, if the ingress is there to hold it."""
    application = scene.application
    if not application.counted or application.serves:
        return None
    if application.routed and scene.effective.low == 0 and not _woken_in_vain(scene):
        return None
    what = "the model" if application.routed else "the ingress"
    none = f"No replica of {what} takes requests{application.age}"
    return _blocked(scene, none) or ConditionState("False", Reason.NO_REPLICAS, f"{none}{_state(scene)}.")


def _has_failed(scene: _Scene) -> ConditionState | None:
    """The application's status, where Ray's replica counts say nothing better."""
    application = scene.application
    if application.counted or application.status not in _FAILED:
        return None
    message = f"The Serve application is {application.status}: {application.reason}"
    return _blocked(scene, message) or ConditionState("False", _FAILED[application.status], message)


def _is_unknown(scene: _Scene) -> ConditionState | None:
    """Neither counted nor RUNNING: Ray is deploying, or has not told since the head started.

    KubeRay drops the status of the active cluster while a second one starts; then the former one stands.
    """
    application = scene.application
    if application.counted or application.status == "RUNNING":
        return None
    if application.status == "" and scene.view.upgrading and scene.view.pending:
        return None
    told = f"is {application.status}" if application.status else "was not told of by Ray yet"
    unread = f"; {application.unread}" if application.unread else ""
    message = f"The Serve application {told}{unread}"
    return _blocked(scene, message) or ConditionState("False", Reason.APPLICATION_DEPLOYING, f"{message}.")


def _has_no_endpoints(scene: _Scene) -> ConditionState | None:
    """KubeRay's count may be old; the pods are not. At a floor of zero the head may be the only one, ready by now."""
    ready_pods = any(pod.ready and pod.in_service for pod in scene.pods)
    if scene.view.endpoints > 0 and (ready_pods or scene.effective.low == 0):
        return None
    if ready_pods and scene.snapshot.answers:
        return None  # a cluster that has just taken over
    message = "No pod takes requests"
    return _blocked(scene, message) or ConditionState("False", Reason.NO_ENDPOINTS, f"{message}.")


def _is_at_zero(scene: _Scene) -> ConditionState | None:
    application = scene.application
    if scene.effective.low > 0:
        return None
    if application.serves if application.counted else any(p.ready for p in scene.pods if not p.is_head):
        return None
    held = (
        f"is held up to {scene.effective.hold_seconds} s (limits.coldStartTimeoutSeconds) while a"
        " worker starts and the model loads, then answered 503; one that is held is lost with the head"
    )
    if application.counted and application.target > 0:
        problem = scene.problem()
        waits = f"; {problem}" if problem else ""
        return ConditionState("True", Reason.WAKING, f"A replica is starting; a request {held}{waits}.")
    return ConditionState("True", Reason.SCALED_TO_ZERO, f"No replica runs; the next request {held}.")


def _serving(scene: _Scene) -> ConditionState:
    application = scene.application
    serving = f"Serving from {scene.cluster}{application.age}"
    if application.counted and application.status in _FAILED:
        count = f"{application.model} of {max(application.target, application.model)} replicas answer"
        message = f"{serving}; {count}, and the application is {application.status}: {application.reason}"
        return ConditionState("True", Reason.DEGRADED, message)
    failed = scene.view.pending_application
    if scene.view.active and scene.view.pending and failed.status in _FAILED:
        words = failed.message or "Ray gives no reason"
        message = f"{serving}, as before the last change, which failed: {scene.view.pending} is {failed.status}: {words}"
        return ConditionState("True", Reason.DEGRADED, message)
    return ConditionState("True", Reason.SERVING, f"{serving}.")


_Check = Callable[[_Scene], ConditionState | None]
_BEFORE_IT_SERVES: tuple[_Check, ...] = (_is_suspended, _is_refused, _is_starting)
_WHILE_IT_SERVES: tuple[_Check, ...] = (
    _has_no_head,
    _has_no_replicas,
    _has_failed,
    _is_unknown,
    _has_no_endpoints,
    _is_at_zero,
)


def _first(scene: _Scene, checks: tuple[_Check, ...]) -> ConditionState | None:
    return next(filter(None, (check(scene) for check in checks)), None)


def _woken_in_vain(scene: _Scene) -> bool:
    """At zero, and the replica that a request asked for fails or has no node for longer than a request is held."""
    if scene.application.status in _FAILED:
        return True
    problem = scene.problem()
    if scene.application.target == 0 or problem is None or not problem.since:
        return False
    limit = timedelta(seconds=scene.effective.hold_seconds)
    return scene.now - problem.started() > limit


def _blocked(scene: _Scene, what: str) -> ConditionState | None:
    """The same, with the cause as the reason where one is known: the model, a pod, a quota."""
    of_model = model_problem(scene.application.words)
    if of_model is not None:
        return ConditionState("False", of_model.reason, f"{what}: {of_model.message}")
    problem = scene.problem()
    if problem is None or is_young(problem, scene.now):
        return None
    return ConditionState("False", problem.reason, f"{what}: {problem}")


def _state(scene: _Scene) -> str:
    application = scene.application
    state = f"; the application is {application.status}" if application.status else ""
    return f"{state}: {application.reason}" if application.words else state
