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
from sd_operator.observe.effective_spec import Intent
from sd_operator.observe.pod_problems import Trouble
from sd_operator.observe.snapshot import Observed, PodView, RayServiceView, pods_of
from sd_operator.status.condition_state import Verdict
from sd_operator.status.conditions import is_suspended
from sd_operator.status.model import model_problem
from sd_operator.status.schedulable import is_young, troubles

_FAILED = {"DEPLOY_FAILED": Reason.APPLICATION_FAILED, "UNHEALTHY": Reason.APPLICATION_UNHEALTHY}


@dataclass(frozen=True)
class _Scene:
    """What the checks look at; `cluster` is the RayCluster that requests reach."""

    intent: Intent
    observed: Observed
    view: RayServiceView
    cluster: str
    application: Known
    now: datetime

    @property
    def pods(self) -> list[PodView]:
        return pods_of(self.observed, self.cluster)

    def trouble(self) -> Trouble | None:
        """The first thing that keeps pods of the cluster from running."""
        return next(iter(troubles(self.observed, self.cluster)), None)


def ready(intent: Intent, observed: Observed, now: datetime) -> Verdict:
    """Whether a request would be answered now."""
    view = observed.ray_service
    if view is None:
        return Verdict("False", Reason.CREATING, "The RayService does not exist yet.")
    cluster = view.active or view.pending
    scene = _Scene(intent, observed, view, cluster, known(observed, cluster), now)
    verdict = _first(scene, _BEFORE_IT_SERVES)
    if verdict is not None:
        return verdict
    verdict = _first(scene, _WHILE_IT_SERVES) or _serving(scene)
    if observed.answers and verdict.status == "False":
        return Verdict("True", Reason.DEGRADED, f"Replicas in {cluster} still answer. {verdict.message}")
    return verdict


def denied(intent: Intent, observed: Observed, now: datetime) -> Verdict | None:
    """What the spec, KubeRay and pods say against an answer, whatever Ray may report; None where nothing does."""
    view = observed.ray_service
    if view is None:
        return Verdict("False", Reason.CREATING, "The RayService does not exist yet.")
    cluster = view.active or view.pending
    scene = _Scene(intent, observed, view, cluster, known(observed, cluster), now)
    return _first(scene, (*_BEFORE_IT_SERVES, _has_no_head, _has_no_endpoints))


def _is_suspended(scene: _Scene) -> Verdict | None:
    if is_suspended(scene.intent, scene.view):
        return Verdict("False", Reason.SUSPENDED, "Suspended; set suspend: false to start again.")
    return None


def _is_refused(scene: _Scene) -> Verdict | None:
    """Before a first cluster. Later the refused change leaves what serves as it is; `Accepted` tells of it."""
    if scene.view.refused and not scene.view.active:
        return Verdict(
            "False", Reason.KUBERAY_REFUSED, f"KubeRay refuses the RayService: {scene.view.refused}"
        )
    return None


def _is_starting(scene: _Scene) -> Verdict | None:
    view = scene.view
    if view.active:
        return None
    if not view.pending:
        return Verdict(
            "False", Reason.STARTING, f"Waiting for KubeRay to make a RayCluster since {view.since}."
        )
    starting = f"RayCluster {view.pending} is starting since {view.since}"
    return _blocked(scene, starting) or Verdict("False", Reason.STARTING, f"{starting}{_state(scene)}.")


def _has_no_head(scene: _Scene) -> Verdict | None:
    heads = [pod for pod in scene.pods if pod.is_head]
    answers = scene.application.fresh and scene.application.serves
    if any(pod.ready for pod in heads) or (answers and any(pod.running for pod in heads)):
        return None
    missing = f"The head pod of {scene.cluster} is gone or not ready"
    trouble = next((pod.trouble for pod in heads if pod.trouble), None)
    cluster_trouble = scene.observed.cluster_troubles.get(scene.cluster)
    told = trouble or cluster_trouble
    return Verdict("False", Reason.HEAD_NOT_READY, f"{missing}; {told}." if told else f"{missing}.")


def _has_no_replicas(scene: _Scene) -> Verdict | None:
    """Serve's own counts. At zero on purpose a request is held, if the ingress is there to hold it."""
    application = scene.application
    if not application.counted or application.serves:
        return None
    if application.routed and scene.intent.low == 0 and not _woken_in_vain(scene):
        return None
    what = "the model" if application.routed else "the ingress"
    none = f"No replica of {what} takes requests{application.age}"
    return _blocked(scene, none) or Verdict("False", Reason.NO_REPLICAS, f"{none}{_state(scene)}.")


def _has_failed(scene: _Scene) -> Verdict | None:
    """The application's status, where Ray's replica counts say nothing better."""
    application = scene.application
    if application.counted or application.status not in _FAILED:
        return None
    message = f"The Serve application is {application.status}: {application.reason}"
    return _blocked(scene, message) or Verdict("False", _FAILED[application.status], message)


def _is_unknown(scene: _Scene) -> Verdict | None:
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
    return _blocked(scene, message) or Verdict("False", Reason.APPLICATION_DEPLOYING, f"{message}.")


def _has_no_endpoints(scene: _Scene) -> Verdict | None:
    """KubeRay's count may be old; the pods are not. At a floor of zero the head may be the only one, ready by now."""
    ready_pods = any(pod.ready and pod.in_service for pod in scene.pods)
    if scene.view.endpoints > 0 and (ready_pods or scene.intent.low == 0):
        return None
    if ready_pods and scene.observed.answers:
        return None  # a cluster that has just taken over
    message = "No pod takes requests"
    return _blocked(scene, message) or Verdict("False", Reason.NO_ENDPOINTS, f"{message}.")


def _is_at_zero(scene: _Scene) -> Verdict | None:
    application = scene.application
    if scene.intent.low > 0:
        return None
    if application.serves if application.counted else any(p.ready for p in scene.pods if not p.is_head):
        return None
    held = (
        f"is held up to {scene.intent.hold_seconds} s (limits.coldStartTimeoutSeconds) while a"
        " worker starts and the model loads, then answered 503; one that is held is lost with the head"
    )
    if application.counted and application.target > 0:
        trouble = scene.trouble()
        waits = f"; {trouble}" if trouble else ""
        return Verdict("True", Reason.WAKING, f"A replica is starting; a request {held}{waits}.")
    return Verdict("True", Reason.SCALED_TO_ZERO, f"No replica runs; the next request {held}.")


def _serving(scene: _Scene) -> Verdict:
    application = scene.application
    serving = f"Serving from {scene.cluster}{application.age}"
    if application.counted and application.status in _FAILED:
        count = f"{application.model} of {max(application.target, application.model)} replicas answer"
        message = f"{serving}; {count}, and the application is {application.status}: {application.reason}"
        return Verdict("True", Reason.DEGRADED, message)
    failed = scene.view.pending_application
    if scene.view.active and scene.view.pending and failed.status in _FAILED:
        words = failed.message or "Ray gives no reason"
        message = f"{serving}, as before the last change, which failed: {scene.view.pending} is {failed.status}: {words}"
        return Verdict("True", Reason.DEGRADED, message)
    return Verdict("True", Reason.SERVING, f"{serving}.")


_Check = Callable[[_Scene], Verdict | None]
_BEFORE_IT_SERVES: tuple[_Check, ...] = (_is_suspended, _is_refused, _is_starting)
_WHILE_IT_SERVES: tuple[_Check, ...] = (
    _has_no_head,
    _has_no_replicas,
    _has_failed,
    _is_unknown,
    _has_no_endpoints,
    _is_at_zero,
)


def _first(scene: _Scene, checks: tuple[_Check, ...]) -> Verdict | None:
    return next(filter(None, (check(scene) for check in checks)), None)


def _woken_in_vain(scene: _Scene) -> bool:
    """At zero, and the replica that a request asked for fails or has no node for longer than a request is held."""
    if scene.application.status in _FAILED:
        return True
    trouble = scene.trouble()
    if scene.application.target == 0 or trouble is None or not trouble.since:
        return False
    limit = timedelta(seconds=scene.intent.hold_seconds)
    return scene.now - trouble.started() > limit


def _blocked(scene: _Scene, what: str) -> Verdict | None:
    """The same, with the cause as the reason where one is known: the model, a pod, a quota."""
    problem = model_problem(scene.application.words)
    if problem is not None:
        return Verdict("False", problem.reason, f"{what}: {problem.message}")
    trouble = scene.trouble()
    if trouble is None or is_young(trouble, scene.now):
        return None
    return Verdict("False", trouble.reason, f"{what}: {trouble}")


def _state(scene: _Scene) -> str:
    application = scene.application
    state = f"; the application is {application.status}" if application.status else ""
    return f"{state}: {application.reason}" if application.words else state
