# SPDX-License-Identifier: Apache-2.0
"""Reconcile a RayService once, in KubeRay's order.

Source: https://github.com/ray-project/kuberay v1.7.0, ray-operator/controllers/ray/rayservice_controller.go. There
are two simplifications: an incremental upgrade runs like NewCluster, and the initializing timeout never passes.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import yaml

from sd_testkit.cluster.api_server import ApiServer, now, suffix
from sd_testkit.cluster.snapshot import Snapshot, by_group, has_ended
from sd_testkit.json_types import Json
from sd_testkit.kuberay import statuses
from sd_testkit.kuberay.conditions import is_true
from sd_testkit.kuberay.go_types import ray_service_as_written
from sd_testkit.kuberay.objects import (
    SERVE_LABEL,
    fits,
    head_service,
    only_appends,
    origin,
    ray_cluster,
    serve_service,
)
from sd_testkit.kuberay.prechecks import problem
from sd_testkit.ray.pace import held

FINALIZER = "ray.io/rayservice-finalizer"
_DELETION_DELAY = 60


class Dashboards(Protocol):
    """The Ray behind a RayCluster, as KubeRay dials it. The methods return None or False if there is no answer."""

    async def applications(self, cluster: Json) -> dict[str, Json] | None:
        """Return application statuses by name."""

    async def deploy(self, cluster: Json, config: Json) -> None:
        """PUT a Serve config."""

    async def has_healthy_proxy(self, pod: Json) -> bool:
        """Return whether the Serve proxy of a head pod is healthy."""


class _NoAnswer(Exception):
    """An error: a head that should answer does not answer."""


@dataclass
class _Memory:
    """The data that KubeRay keeps in memory about one RayService."""

    served_configs: dict[str, str] = field(default_factory=dict)
    heads: dict[str, Json] = field(default_factory=dict)


class RayServices:
    """The part of KubeRay that reconciles RayServices."""

    def __init__(self, server: ApiServer, dashboards: Dashboards) -> None:
        self._server = server
        self._dashboards = dashboards
        self._doomed: dict[str, datetime] = {}
        self._memories: dict[str, _Memory] = {}

    async def reconcile(self, ray_service: Json, seen: Snapshot) -> None:
        """Reconcile a RayService once."""
        metadata = ray_service["metadata"]
        clusters, finalizers = seen.clusters_of(ray_service), metadata.get("finalizers", [])
        if "deletionTimestamp" in metadata:
            await self._clean_up(ray_service, clusters, set())
            if not clusters and FINALIZER in finalizers:
                await self._set_finalizers(ray_service, [each for each in finalizers if each != FINALIZER])
            return
        if FINALIZER not in finalizers:
            await self._set_finalizers(ray_service, [*finalizers, FINALIZER])
            return
        if await self._hangs(ray_service, clusters, seen):
            return
        named = {statuses.cluster_name(ray_service, side) for side in ("active", "pending")}
        await self._clean_up(ray_service, clusters, named)
        complaint = problem(ray_service)
        if complaint is not None:
            if await self._write(ray_service, statuses.refused(ray_service, complaint)):
                place = f"{metadata['namespace']}/{metadata['name']}"
                text = f"{place}: {complaint}"
                await self._server.event(ray_service, "InvalidRayServiceSpec", text, "Warning")
        elif not await self._suspend(ray_service, clusters, seen):
            await self._serve(ray_service, clusters, seen)

    async def _set_finalizers(self, ray_service: Json, finalizers: list[str]) -> None:
        """Set the finalizers. KubeRay replaces the whole object with the form of its Go types."""
        written = ray_service_as_written(ray_service)
        await self._server.replace({**written, "metadata": {**written["metadata"], "finalizers": finalizers}})

    async def _hangs(self, ray_service: Json, clusters: list[Json], seen: Snapshot) -> bool:
        """Return whether this pass hangs and fails: it dials a head that has just died.

        The status stays unchanged.
        """
        memory = self._memory(ray_service)
        heads = {
            each["metadata"]["name"]: by_group(seen.pods_of(each)).get("headgroup", []) for each in clusters
        }
        lost = [
            head
            for cluster, head in memory.heads.items()
            if cluster in heads
            and not any(_uid(each) == _uid(head) and not has_ended(each) for each in heads[cluster])
        ]
        if not lost:
            return False
        if held(ray_service, "pass"):
            return True
        for head in lost:
            place = f"{head['metadata']['namespace']}/{head['metadata']['name']}"
            text = (
                f'Failed to update the serve label to "false" for the Head Pod {place}:'
                f' pods "{head["metadata"]["name"]}" not found'
            )
            if head["metadata"]["labels"].get(SERVE_LABEL) == "true":
                await self._server.event(ray_service, "FailedToUpdateHeadPodServeLabel", text, "Warning")
        memory.heads.clear()
        return True

    async def _suspend(self, ray_service: Json, clusters: list[Json], seen: Snapshot) -> bool:
        """Return whether a suspension handles this pass."""
        wanted = bool(ray_service["spec"].get("suspend"))
        if statuses.is_suspended(ray_service):
            if not wanted:
                await self._write(ray_service, statuses.resumed(ray_service))
            return True
        if not statuses.is_suspending(ray_service):
            if wanted:
                await self._write(ray_service, statuses.suspending(ray_service))
            return wanted
        mine = [
            each
            for each in seen.services
            if each["metadata"]["namespace"] == ray_service["metadata"]["namespace"]
            and origin(ray_service["metadata"]["name"]).items() <= each["metadata"].get("labels", {}).items()
        ]
        for each in [*clusters, *mine]:
            kind = "the RayCluster" if each["kind"] == "RayCluster" else "the Service"
            await self._remove(ray_service, each, kind, " during suspend")
        if not clusters and not mine:
            await self._write(ray_service, statuses.suspended(ray_service))
        return True

    async def _serve(self, ray_service: Json, clusters: list[Json], seen: Snapshot) -> None:
        by_name = {each["metadata"]["name"]: each for each in clusters}
        active = by_name.get(statuses.cluster_name(ray_service, "active"))
        pending = by_name.get(statuses.cluster_name(ray_service, "pending"))
        wanted = statuses.cluster_name(ray_service, "pending")
        if wanted and pending is None:
            body = ray_cluster(ray_service, wanted)
            made = await self._server.create(body)
            if made is not None:
                await self._tell(ray_service, "CreatedRayCluster", "Created the RayCluster", body)
            return
        try:
            for each in (active, pending):
                if each is not None:
                    await self._append_groups(ray_service, each, is_active=each is active)
                    await self._label_head(ray_service, each, seen)
            found = await self._findings(ray_service, active, pending, seen)
        except _NoAnswer:
            return  # The pass fails, and the status stays unchanged.
        await self._write(ray_service, statuses.serving(ray_service, found))

    async def _findings(
        self, ray_service: Json, active: Json | None, pending: Json | None, seen: Snapshot
    ) -> statuses.Findings:
        """Deploy to the newest cluster, and point the Services to it once its application runs."""
        metadata = ray_service["metadata"]
        newest = pending or active
        ready, applications = False, None
        if pending is not None or (active is not None and not self._needs_cluster(ray_service, active)):
            ready, applications = await self._deploy(ray_service, pending or active or {})
        switched = None
        if ready and newest is not None:
            switched = newest["metadata"]["name"]
            await self._point_services(ray_service, newest, seen)
        is_switching = pending is not None and switched == pending["metadata"]["name"]
        needs = not is_switching and (newest is None or self._needs_cluster(ray_service, newest))
        return statuses.Findings(
            active=active,
            pending=pending,
            active_applications=applications if pending is None else None,
            pending_applications=applications if pending is not None else None,
            switched_to=switched,
            endpoints=seen.ready_endpoints(metadata["namespace"], f"{metadata['name']}-serve-svc"),
            wants_cluster=f"{metadata['name']}-{suffix()}" if needs else None,
        )

    def _needs_cluster(self, ray_service: Json, cluster: Json) -> bool:
        spec = ray_service["spec"]
        if fits(ray_service, cluster) or only_appends(ray_service, cluster):
            return False
        return bool(spec.get("upgradeStrategy", {}).get("type") != "None")

    async def _append_groups(self, ray_service: Json, cluster: Json, *, is_active: bool) -> None:
        """Add appended groups to the live cluster. The update overwrites the replica numbers of the autoscaler."""
        upgrading = is_true((ray_service.get("status") or {}).get("conditions", []), "UpgradeInProgress")
        if (is_active and upgrading) or fits(ray_service, cluster):
            return
        if only_appends(ray_service, cluster):
            goal = ray_cluster(ray_service, cluster["metadata"]["name"])
            annotations = {**cluster["metadata"].get("annotations", {}), **goal["metadata"]["annotations"]}
            patch = {"spec": goal["spec"], "metadata": {"annotations": annotations}}
            await self._server.merge(cluster, patch)
            role = "active" if is_active else "pending"
            await self._tell(ray_service, "UpdatedRayCluster", f"Updated the {role} RayCluster", cluster)

    async def _label_head(self, ray_service: Json, cluster: Json, seen: Snapshot) -> None:
        """Set the serve label of the head: `true` while its proxy is healthy and the head may receive requests.

        Raises:
            _NoAnswer: the head has ended but its pod still exists, so that a call to the head hangs.
        """
        heads = [each for each in by_group(seen.pods_of(cluster)).get("headgroup", []) if not has_ended(each)]
        memory = self._memory(ray_service)
        if not heads:
            return
        head = heads[0]
        memory.heads[cluster["metadata"]["name"]] = head
        excluded = ray_service["spec"].get("excludeHeadPodFromServeSvc", False)
        healthy = not excluded and await self._dashboards.has_healthy_proxy(head)
        if not excluded and not healthy and "deletionTimestamp" in head["metadata"]:
            raise _NoAnswer
        label = str(healthy).lower()
        if head["metadata"]["labels"].get(SERVE_LABEL) != label:
            await self._server.merge(head, {"metadata": {"labels": {SERVE_LABEL: label}}})
            what = f'Updated the serve label to "{label}" for the Head Pod'
            await self._tell(ray_service, "UpdatedHeadPodServeLabel", what, head)

    async def _deploy(self, ray_service: Json, cluster: Json) -> tuple[bool, dict[str, Json] | None]:
        """Read the applications, then PUT the config if it is new or Ray has none.

        Raises:
            _NoAnswer: the head's pod is ready, but its dashboard does not answer.
        """
        if not is_true((cluster.get("status") or {}).get("conditions", []), "HeadPodReady"):
            return False, None
        found = await self._dashboards.applications(cluster)
        if found is None:
            raise _NoAnswer
        config = ray_service["spec"].get("serveConfigV2", "")
        name = cluster["metadata"]["name"]
        served = self._memory(ray_service).served_configs
        if not found or served.get(name) != config:
            await self._dashboards.deploy(cluster, yaml.safe_load(config) or {})
            served[name] = config
            what = "Updated serve applications to the RayCluster"
            await self._tell(ray_service, "UpdatedServeApplications", what, cluster)
        return bool(found) and all(each["status"] == "RUNNING" for each in found.values()), found

    async def _point_services(self, ray_service: Json, cluster: Json, seen: Snapshot) -> None:
        for wanted in (head_service(ray_service, cluster), serve_service(ray_service, cluster)):
            metadata = wanted["metadata"]
            live = seen.service(metadata["namespace"], metadata["name"])
            if live is None:
                if await self._server.create(wanted) is not None:
                    await self._tell(ray_service, "CreatedService", "Created the service", wanted)
            elif live["spec"]["selector"]["ray.io/cluster"] != cluster["metadata"]["name"]:
                await self._server.merge(live, {"spec": {"selector": wanted["spec"]["selector"]}})
                await self._tell(ray_service, "UpdatedService", "Updated the service", live)

    async def _clean_up(self, ray_service: Json, clusters: list[Json], named: set[str]) -> None:
        """Delete clusters that the status does not name, after a delay. Delete all clusters with the RayService."""
        at_once = "deletionTimestamp" in ray_service["metadata"]
        delay = ray_service["spec"].get("rayClusterDeletionDelaySeconds", _DELETION_DELAY)
        moment = datetime.now(UTC)
        for each in clusters:
            if each["metadata"]["name"] in named:
                continue
            at = self._doomed.setdefault(_uid(each), moment + timedelta(seconds=delay))
            if at_once or at <= moment:
                await self._remove(ray_service, each, "the RayCluster")

    async def _remove(self, ray_service: Json, live: Json, what: str, when: str = "") -> None:
        if "deletionTimestamp" in live["metadata"]:
            return
        await self._server.delete(live)
        metadata = live["metadata"]
        text = f"Deleted {what} {metadata['namespace']}/{metadata['name']}{when}"
        await self._server.event(ray_service, f"Deleted{live['kind']}", text)

    async def _write(self, ray_service: Json, status: Json) -> bool:
        """Write the status if it changed. Return whether it was written."""
        before = ray_service.get("status") or {}
        stamp = {"lastUpdateTime": before.get("lastUpdateTime")}
        if {**status, **stamp} == {**before, **stamp}:
            return False
        await self._server.replace_status(ray_service, {**status, "lastUpdateTime": now()})
        return True

    async def _tell(self, ray_service: Json, reason: str, what: str, about: Json) -> None:
        metadata = about["metadata"]
        await self._server.event(ray_service, reason, f"{what} {metadata['namespace']}/{metadata['name']}")

    def _memory(self, ray_service: Json) -> _Memory:
        return self._memories.setdefault(_uid(ray_service), _Memory())


def _uid(live: Json) -> str:
    return str(live["metadata"]["uid"])
