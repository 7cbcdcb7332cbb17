# SPDX-License-Identifier: Apache-2.0
"""`Ready`: a request would be answered now. A chain of checks; the first check with a result decides (pure).

KubeRay only counts endpoints: its Ready stays True while the application is DEPLOY_FAILED or the head is gone.
Ray's own replica counts therefore decide where they are known, whatever the application's status. Replicas of the former
version continue to serve while a new version is built, rolled out or has failed. One unhealthy replica of several makes
the whole application UNHEALTHY. These cases do not make Ready flip:

- A dashboard does not answer: its last answer counts for two minutes, and the message states its age.
- One replica, worker or pod of several restarts: the others answer, so Ready stays True (Serving or Degraded).
- A head misses its probe while its dashboard answers: requests go to the workers.
- Ray reports no replica while workers are ready. The head is gone or new, or another version is being built or has
  failed. The operator then probes the service itself, and Ready is True/Degraded if the probe succeeds.
- KubeRay counts no endpoint yet of a cluster that has just taken over: the probe decides here too (Serving).

Known bad news is never delayed: the last replica is gone, or a first deployment has failed.
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
    """The input of the checks; `cluster` is the RayCluster that requests reach."""

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
        """The first problem that keeps pods of the cluster from running; None if there is none."""
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
        return ConditionState(
            "True", Reason.DEGRADED, f"Replicas in RayCluster {cluster} still answer. {state.message}"
        )
    return state


def denied(effective: EffectiveSpec, snapshot: Snapshot, now: datetime) -> ConditionState | None:
    """The reason why no request can be answered, whatever Ray reports; by spec, KubeRay and pods; None if there is none."""
    view = snapshot.ray_service
    if view is None:
        return ConditionState("False", Reason.CREATING, "The RayService does not exist yet.")
    cluster = view.active or view.pending
    scene = _Scene(effective, snapshot, view, cluster, known(snapshot, cluster), now)
    return _first(scene, (*_BEFORE_IT_SERVES, _has_no_head, _has_no_endpoints))


def _is_suspended(scene: _Scene) -> ConditionState | None:
    if is_suspended(scene.effective, scene.view):
        return ConditionState(
            "False",
            Reason.SUSPENDED,
            "The service is suspended. Set spec.suspend to false to start it again.",
        )
    return None


def _is_refused(scene: _Scene) -> ConditionState | None:
    """KubeRay refuses the RayService before the first cluster serves.

    A later refused change does not affect the serving cluster; `Accepted` reports it.
    """
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
            "False",
            Reason.STARTING,
            f"The operator has been waiting for KubeRay to create a RayCluster since {view.since}.",
        )
    starting = f"RayCluster {view.pending} has been starting since {view.since}"
    return _blocked(scene, starting) or ConditionState(
        "False", Reason.STARTING, f"{starting}{_state(scene)}."
    )


def _has_no_head(scene: _Scene) -> ConditionState | None:
    heads = [pod for pod in scene.pods if pod.is_head]
    answers = scene.application.fresh and scene.application.serves
    if any(pod.ready for pod in heads) or (answers and any(pod.running for pod in heads)):
        return None
    missing = f"The head pod of RayCluster {scene.cluster} is gone or not ready"
    problem = next((pod.problem for pod in heads if pod.problem), None)
    cluster_problem = scene.snapshot.cluster_troubles.get(scene.cluster)
    cause = problem or cluster_problem
    return ConditionState("False", Reason.HEAD_NOT_READY, f"{missing}; {cause}." if cause else f"{missing}.")


def _has_no_replicas(scene: _Scene) -> ConditionState | None:
    """Ray counts no replica that accepts requests. At a minimum of zero replicas that is fine if the ingress runs."""
    application = scene.application
    if not application.counted or application.serves:
        return None
    if application.routed and scene.effective.low == 0 and not _woken_in_vain(scene):
        return None
    what = "the model" if application.routed else "the ingress"
    none = f"No replica of {what} accepts requests{application.age}"
    return _blocked(scene, none) or ConditionState("False", Reason.NO_REPLICAS, f"{none}{_state(scene)}.")


def _has_failed(scene: _Scene) -> ConditionState | None:
    """The application has failed, and Ray's replica counts are unknown."""
    application = scene.application
    if application.counted or application.status not in _FAILED:
        return None
    message = f"The Serve application is {application.status}: {application.reason}"
    return _blocked(scene, message) or ConditionState("False", _FAILED[application.status], message)


def _is_unknown(scene: _Scene) -> ConditionState | None:
    """Ray is deploying, or has not reported since the head started: no replica counts, and the status is not RUNNING.

    KubeRay drops the status of the active cluster while a second cluster starts; the former status then stays valid.
    """
    application = scene.application
    if application.counted or application.status == "RUNNING":
        return None
    if application.status == "" and scene.view.upgrading and scene.view.pending:
        return None
    unread = f"; {application.unread}" if application.unread else ""
    status = application.status
    state = (
        f"The Serve application is {status}" if status else "Ray has not reported the Serve application yet"
    )
    message = f"{state}{unread}"
    return _blocked(scene, message) or ConditionState("False", Reason.APPLICATION_DEPLOYING, f"{message}.")


def _has_no_endpoints(scene: _Scene) -> ConditionState | None:
    """No pod accepts requests. KubeRay's count may be old, so the pods are checked too.

    At a minimum of zero replicas the head may be the only endpoint.
    """
    ready_pods = any(pod.ready and pod.in_service for pod in scene.pods)
    if scene.view.endpoints > 0 and (ready_pods or scene.effective.low == 0):
        return None
    if ready_pods and scene.snapshot.answers:
        return None  # a cluster that has just taken over
    message = "No pod accepts requests"
    return _blocked(scene, message) or ConditionState("False", Reason.NO_ENDPOINTS, f"{message}.")


def _is_at_zero(scene: _Scene) -> ConditionState | None:
    application = scene.application
    if scene.effective.low > 0:
        return None
    if application.serves if application.counted else any(p.ready for p in scene.pods if not p.is_head):
        return None
    waits = (
        f"waits up to {scene.effective.hold_seconds} s (limits.coldStartTimeoutSeconds) for a worker and the model, then"
        " it is answered with 503. Waiting requests are lost if the head pod restarts."
    )
    if application.counted and application.target > 0:
        problem = scene.problem()
        cause = f" {problem}." if problem else ""
        return ConditionState("True", Reason.WAKING, f"A replica is starting. A request {waits}{cause}")
    return ConditionState("True", Reason.SCALED_TO_ZERO, f"No replica runs. The next request {waits}")


def _serving(scene: _Scene) -> ConditionState:
    application = scene.application
    serving = f"RayCluster {scene.cluster} serves requests{application.age}"
    if application.counted and application.status in _FAILED:
        count = f"{application.model} of {max(application.target, application.model)} replicas answer"
        message = f"{serving}. {count}, and the application is {application.status}: {application.reason}"
        return ConditionState("True", Reason.DEGRADED, message)
    failed = scene.view.pending_application
    if scene.view.active and scene.view.pending and failed.status in _FAILED:
        words = failed.message or "Ray gives no reason"
        message = (
            f"{serving}. The last change failed, so the former version stays in use. The application of RayCluster"
            f" {scene.view.pending} is {failed.status}: {words}"
        )
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
    """Whether a request woke the service from zero without success.

    The new replica fails, or has had no node for longer than a request waits.
    """
    if scene.application.status in _FAILED:
        return True
    problem = scene.problem()
    if scene.application.target == 0 or problem is None or not problem.since:
        return False
    limit = timedelta(seconds=scene.effective.hold_seconds)
    return scene.now - problem.started() > limit


def _blocked(scene: _Scene, what: str) -> ConditionState | None:
    """A False state with the cause as its reason if one is known: the model, a pod, a quota; else None."""
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
