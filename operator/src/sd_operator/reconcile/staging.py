# SPDX-License-Identifier: Apache-2.0
"""Decides which part of a desired RayService may be applied now, so that the serving cluster keeps serving (pure).

KubeRay and Ray act on some fields immediately, even if the serving cluster was created from another spec. Such a field is
changed in a later pass, once nothing depends on its former value:

- `excludeHeadPodFromServeSvc` removes the head from the Service (KubeRay v1.7.0, updateHeadPodServeLabel). The head of a
  service at zero replicas is the only pod that accepts requests, so it stays until a worker accepts them.
- `rayClusterDeletionDelaySeconds` starts when a cluster stops serving. It is not shortened while a cluster runs that may
  need the longer delay (cleanUpRayClusterInstance).
- `max_surge_percent` lets a new replica start before an old one stops. It becomes 0 if no node became available for the
  additional worker (ray.serve: DeploymentState reads it at each step of a rolling update).
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from sd_operator import times
from sd_operator.api import Condition, Resource, Spec, Status
from sd_operator.api.status import ConditionType, Reason
from sd_operator.builders.fingerprint import runs_other_config
from sd_operator.builders.serve_config import has_surge, serve_config_text
from sd_operator.json_types import Json
from sd_operator.kube.ownership import owner
from sd_operator.observe.snapshot import observe

_CONFIG = "serveConfigV2"
_EXCLUDES_HEAD = "excludeHeadPodFromServeSvc"
_DELAY = "rayClusterDeletionDelaySeconds"


def removes_head(wanted: Json, live: Json | None) -> bool:
    """Whether applying the desired RayService would remove the head from the Service."""
    excludes = bool(wanted["spec"].get(_EXCLUDES_HEAD))
    return live is not None and excludes and not live["spec"].get(_EXCLUDES_HEAD)


def staged(wanted: Json, live: Json | None, ray_clusters: list[Json], pods: Iterable[Json]) -> Json:
    """The RayService to apply now, as a step to the desired one.

    Args:
        wanted: the desired RayService.
        live: the live RayService; None if there is none.
        ray_clusters: the live RayClusters of the service.
        pods: the live pods of the service if `removes_head`; else none.
    """
    if live is None:
        return wanted
    mine = [each for each in ray_clusters if owner(each) == live["metadata"]["uid"]]
    spec = dict(wanted["spec"])
    if removes_head(wanted, live) and not _a_worker_takes_requests(wanted, live, mine, pods):
        del spec[_EXCLUDES_HEAD]  # KubeRay omits the field if it is false
    shortens = spec[_DELAY] < live["spec"].get(_DELAY, 0)
    if shortens and not _is_settled(wanted, mine):
        spec[_DELAY] = live["spec"][_DELAY]
    return {**wanted, "spec": spec}


def replaces_in_place(
    resource: Resource, wanted: str, live: Json | None, before: Status, now: datetime
) -> bool:
    """Whether replicas are replaced in place, because no node became available for the additional worker.

    Once this has started, it stays so until the Serve config changes.

    Args:
        resource: the resource.
        wanted: the text of the Serve config of its spec.
        live: the live RayService; None if there is none.
        before: the recorded status; its transition times are the clock.
        now: the time, UTC.
    """
    spec = resource.spec
    if live is None or not has_surge(spec):
        return False
    running = live["spec"].get(_CONFIG, "")
    if running == wanted:
        return _no_node_came(spec, before, resource.generation, now)
    return bool(running == serve_config_text(spec, in_place=True))


def in_place(wanted: Json, spec: Spec) -> Json:
    """The RayService with the Serve config that replaces replicas in place."""
    return {**wanted, "spec": {**wanted["spec"], _CONFIG: serve_config_text(spec, in_place=True)}}


def _a_worker_takes_requests(
    wanted: Json, live: Json, ray_clusters: list[Json], pods: Iterable[Json]
) -> bool:
    """Whether the serving cluster has the desired config, as RayCluster and in Serve, and a worker in the Service."""
    snapshot = observe(live, pods, ray_clusters)
    view = snapshot.ray_service
    serving = [each for each in ray_clusters if each["metadata"]["name"] == snapshot.active]
    if view is None or view.pending or not view.up_to_date or not serving:
        return False
    if runs_other_config(wanted, serving[0]) or live["spec"].get(_CONFIG) != wanted["spec"][_CONFIG]:
        return False
    return any(
        pod.cluster == view.active and pod.ready and pod.in_service and not pod.is_head
        for pod in snapshot.pods
    )


def _is_settled(wanted: Json, ray_clusters: list[Json]) -> bool:
    """Whether there is at most one cluster, created from the desired config."""
    staying = [each for each in ray_clusters if "deletionTimestamp" not in each["metadata"]]
    return len(staying) <= 1 and not any(runs_other_config(wanted, each) for each in staying)


def _no_node_came(spec: Spec, before: Status, generation: int, now: datetime) -> bool:
    if before.observed_generation != generation:
        return False
    found = {each.type: each for each in before.conditions}
    applied, placed = found.get(ConditionType.CONFIG_APPLIED), found.get(ConditionType.SCHEDULABLE)
    upgrading = found.get(ConditionType.UPGRADING)
    if applied is None or placed is None or applied.reason != Reason.APPLICATION_DEPLOYING:
        return False
    if upgrading is not None and upgrading.status == "True":
        return False  # the waiting pods belong to a second cluster, which replaces no replicas
    limit = timedelta(seconds=spec.upgrade.surge_timeout_seconds)
    return placed.status == "False" and now - _since(placed) >= limit


def _since(condition: Condition) -> datetime:
    return times.parsed(condition.last_transition_time)
