# SPDX-License-Identifier: Apache-2.0
"""Reads live objects into the few facts from which the status is computed (pure).

Only this module knows KubeRay's status fields: https://github.com/ray-project/kuberay, ray-operator/apis/ray/v1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sd_operator import naming, times
from sd_operator.json_types import Json
from sd_operator.observe import pod_problems
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.preload_state import PreloadState
from sd_operator.observe.upgrade_progress import UpgradeState
from sd_operator.ray.serve_state import Reading, Silence
from sd_operator.strict_json import clipped, object_or_empty, text_or_empty

_MOST_STATUS = 64
_MOST_WORDS = 32 * 1024


@dataclass(frozen=True)
class Application:
    """The Serve application as KubeRay last reported it; an unknown application has an empty status."""

    status: str = ""
    message: str = ""


@dataclass(frozen=True)
class RayServiceView:
    """The facts of a RayService.

    Attributes:
        up_to_date: whether KubeRay has processed the latest generation.
        since: when KubeRay's Ready last changed, UTC; before that, the creation time.
        refused: KubeRay's message if it refuses the spec; else empty.
        active: name of the serving RayCluster, or empty; `pending` is the name of the one that is starting.
        endpoints: number of pods that accept requests.
    """

    up_to_date: bool
    since: str
    refused: str = ""
    active: str = ""
    pending: str = ""
    active_application: Application = field(default_factory=Application)
    pending_application: Application = field(default_factory=Application)
    endpoints: int = 0
    upgrading: bool = False
    suspending: bool = False
    suspended: bool = False

    @property
    def application(self) -> Application:
        """The application that requests reach; before the first cluster serves, that of the pending cluster."""
        return self.active_application if self.active else self.pending_application

    def of(self, cluster: str) -> Application:
        """The application in one of the two clusters."""
        return self.active_application if cluster == self.active else self.pending_application


@dataclass(frozen=True)
class PodTimes:
    """The times of a pod's start; None for a step that is not done yet.

    Attributes:
        created: when the pod was created.
        scheduled: when the pod got a node.
        pulled: when its first container ran, including init containers; all containers of a Ray pod have one image.
        started: when its Ray container ran.
    """

    created: datetime
    scheduled: datetime | None = None
    pulled: datetime | None = None
    started: datetime | None = None


@dataclass(frozen=True)
class PodView:
    """A Ray pod.

    Attributes:
        in_service: whether the serve Service sends it requests once it is ready.
        running: whether its containers have started and it is not being deleted. A head that is being deleted still counts:
            Ray ignores SIGTERM there and works until the grace period is over, so its dashboard may answer.
        problem: the problem that keeps it from running; None if there is none.
        times: the times of its start; None for a pod that is being deleted or has ended.
    """

    cluster: str
    group: str
    is_head: bool
    ready: bool
    name: str = ""
    uid: str = ""
    ip: str = ""
    in_service: bool = False
    running: bool = True
    problem: PodProblem | None = None
    times: PodTimes | None = None


@dataclass(frozen=True)
class WarmView:
    """The Deployment of placeholder pods; `words` is the problem that keeps its pods from being created or placed."""

    desired: int
    ready: int
    words: str = ""


@dataclass(frozen=True)
class OldCluster:
    """A RayCluster that was replaced and still has pods.

    Attributes:
        pods: number of its pods.
        until: latest time at which its last pod is gone, UTC; empty while KubeRay keeps the cluster.
    """

    name: str
    pods: int
    until: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Everything that a pass has read about the children of one resource.

    Attributes:
        preload: which nodes hold the images.
        warm: the placeholder pods for spare workers; None if the spec has none.
        cluster_troubles: problems that keep KubeRay from creating pods, by RayCluster.
        deaths: the problem of Ray pods that end repeatedly; None if there is none.
        serve: the last answers of Ray's dashboards, by RayCluster.
        silent: heads whose dashboard has not answered, or not lately, by RayCluster.
        answers: whether the probe shows that the service can generate; it is probed only if Ray leaves this open. None: the
            answer to the first probe is pending.
        gateway: URL of the Gateway through which requests move from cluster to cluster; empty if there is none.
        old_clusters: replaced RayClusters that still have pods.
    """

    ray_service: RayServiceView | None = None
    pods: tuple[PodView, ...] = ()
    preload: PreloadState = field(default_factory=PreloadState)
    warm: WarmView | None = None
    cluster_troubles: Mapping[str, PodProblem] = field(default_factory=dict)
    deaths: PodProblem | None = None
    serve: Mapping[str, Reading] = field(default_factory=dict)
    silent: Mapping[str, Silence] = field(default_factory=dict)
    answers: bool | None = False
    upgrade: UpgradeState = field(default_factory=UpgradeState)
    gateway: str = ""
    old_clusters: tuple[OldCluster, ...] = ()

    @property
    def active(self) -> str:
        """Name of the RayCluster that serves, or empty."""
        return self.ray_service.active if self.ray_service else ""

    @property
    def pending(self) -> str:
        """Name of the RayCluster that is starting, or empty."""
        return self.ray_service.pending if self.ray_service else ""

    @property
    def clusters(self) -> tuple[str, ...]:
        """Names of the active and of the pending RayCluster, without empty ones."""
        return tuple(filter(None, (self.active, self.pending)))

    def with_events(self, events: Iterable[Json], now: datetime) -> "Snapshot":
        """The same snapshot with the problem that Events about the RayClusters report."""
        return replace(self, deaths=pod_problems.of_events(events, now))

    def head(self, cluster: str) -> PodView | None:
        """The head pod of a RayCluster if its dashboard may answer; else None."""
        heads = [pod for pod in self.pods if pod.cluster == cluster and pod.is_head and pod.running]
        return heads[-1] if heads else None


def observe(
    ray_service: Json | None,
    pods: Iterable[Json],
    ray_clusters: Iterable[Json] = (),
    warm: Json | None = None,
) -> Snapshot:
    """Read the live objects of one resource into a snapshot.

    Args:
        ray_service: its RayService; None if there is none.
        pods: its pods, including those of other components.
        ray_clusters: its RayClusters.
        warm: its Deployment of placeholder pods; None if there is none.
    """
    pods, ray_clusters = list(pods), list(ray_clusters)
    ray_pods = [pod for pod in pods if naming.RAY_POD_LABEL in _labels(pod)]
    problems = ((each["metadata"]["name"], pod_problems.of_cluster(each)) for each in ray_clusters)
    return Snapshot(
        ray_service=None if ray_service is None else _ray_service(ray_service),
        pods=tuple(map(_pod, ray_pods)),
        warm=None if warm is None else _warm(warm, pods),
        cluster_troubles={name: found for name, found in problems if found},
    )


def _ray_service(live: Json) -> RayServiceView:
    status = live.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    ready = conditions.get("Ready", {})
    active = status.get("activeServiceStatus") or {}
    pending = status.get("pendingServiceStatus") or {}
    return RayServiceView(
        up_to_date=status.get("observedGeneration", 0) >= live["metadata"].get("generation", 1),
        since=ready.get("lastTransitionTime") or live["metadata"].get("creationTimestamp", ""),
        refused=ready.get("message", "") if _is_refused(ready, status) else "",
        active=active.get("rayClusterName", ""),
        pending=pending.get("rayClusterName", ""),
        active_application=_application(active),
        pending_application=_application(pending),
        endpoints=status.get("numServeEndpoints", 0),
        upgrading=_is_true(conditions, "UpgradeInProgress"),
        suspending=_is_true(conditions, "Suspending"),
        suspended=_is_true(conditions, "Suspended"),
    )


def _is_refused(ready: Json, status: Json) -> bool:
    """Whether KubeRay refuses the current spec.

    KubeRay keeps the reason ValidationFailed until endpoints appear. The condition has the generation that KubeRay had
    processed before it refused. A later generation in the status means that KubeRay has processed a repaired spec since.
    """
    processed = status.get("observedGeneration", 0)
    return ready.get("reason") == "ValidationFailed" and ready.get("observedGeneration", 0) >= processed


def _application(service_status: Json) -> Application:
    """The application in KubeRay's status; a tenant's pod wrote these texts, so form and length are checked."""
    found = object_or_empty(
        object_or_empty(service_status.get("applicationStatuses")).get(naming.APPLICATION)
    )
    reported = {"": found, **object_or_empty(found.get("serveDeploymentStatuses"))}
    messages = (
        (name, text_or_empty(object_or_empty(each).get("message"), _MOST_WORDS))
        for name, each in reported.items()
    )
    words = "; ".join(f"{name}: {message}" if name else message for name, message in messages if message)
    return Application(text_or_empty(found.get("status"), _MOST_STATUS), clipped(words, _MOST_WORDS))


def _pod(live: Json) -> PodView:
    metadata, status = live["metadata"], live.get("status") or {}
    labels = _labels(live)
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    leaving = "deletionTimestamp" in metadata
    is_head = labels.get("ray.io/node-type") == "head"
    return PodView(
        cluster=labels.get("ray.io/cluster", ""),
        group=labels.get("ray.io/group", ""),
        is_head=is_head,
        ready=_is_true(conditions, "Ready") and not leaving,
        name=metadata.get("name", ""),
        uid=metadata.get("uid", ""),
        ip=status.get("podIP", ""),
        # KubeRay sets the label on workers at once, and on a head in the Service once its proxy answers.
        in_service=labels.get("ray.io/serve", "false" if is_head else "true") == "true",
        running=status.get("phase") == "Running" and (is_head or not leaving),
        problem=None if leaving else pod_problems.of_pod(live),
        times=None if leaving or status.get("phase") in {"Failed", "Succeeded"} else _times(live),
    )


def _times(live: Json) -> PodTimes | None:
    metadata, status = live["metadata"], live.get("status") or {}
    created = _time(metadata.get("creationTimestamp"))
    if created is None:
        return None
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    own = [_ran(each) for each in status.get("containerStatuses", [])]
    init = [_ran(each) for each in status.get("initContainerStatuses", [])]
    # For KubeRay the first container of the spec is the Ray container; statuses are sorted by name.
    ray = live.get("spec", {}).get("containers", [{}])[0].get("name")
    names = [each.get("name") for each in status.get("containerStatuses", [])]
    ran = [each for each in (*init, *own) if each is not None]
    return PodTimes(
        created=created,
        scheduled=_time(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None,
        pulled=min(ran, default=None),
        started=own[names.index(ray)] if ray in names else None,
    )


def _ran(container: Json) -> datetime | None:
    state = container.get("state") or {}
    return _time((state.get("running") or state.get("terminated") or {}).get("startedAt"))


def _time(stamp: str | None) -> datetime | None:
    return times.parsed(stamp) if stamp else None


def _labels(live: Json) -> Mapping[str, str]:
    labels: Mapping[str, str] = live["metadata"].get("labels") or {}
    return labels


def _warm(live: Json, pods: Iterable[Json]) -> WarmView:
    status = live.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    failure = conditions.get("ReplicaFailure", {})
    refused = failure.get("message", "") if failure.get("status") == "True" else ""
    own = [pod for pod in pods if _labels(pod).get(naming.COMPONENT_LABEL) == naming.WARM]
    found = filter(None, map(pod_problems.of_pod, own))
    return WarmView(
        desired=live["spec"].get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        # The names of refused pods are random; the reason of the refusal is stable.
        words=pod_problems.without_name(refused) or next((str(each) for each in found), ""),
    )


def _is_true(conditions: Mapping[str, Json], name: str) -> bool:
    return bool(conditions.get(name, {}).get("status") == "True")


def pods_of(snapshot: Snapshot, cluster: str) -> list[PodView]:
    """The pods of one RayCluster."""
    return [pod for pod in snapshot.pods if pod.cluster == cluster]
