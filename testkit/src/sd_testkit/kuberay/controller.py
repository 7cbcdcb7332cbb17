# SPDX-License-Identifier: Apache-2.0
"""The loop of the stand-in: list everything a few times a second, and bring each RayService forward."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException
from kubernetes.aio.dynamic import DynamicClient

from sd_testkit.kuberay import statuses
from sd_testkit.kuberay.fingerprints import cluster_fingerprint, digest
from sd_testkit.kuberay.objects import FINGERPRINT, SERVE_CONFIG, missing_pods, ray_cluster, services, suffix
from sd_testkit.kuberay.prechecks import problem
from sd_testkit.kuberay.statuses import ClusterView

Json = dict[str, Any]

logger = logging.getLogger(__name__)

FINALIZER = "ray.io/rayservice-finalizer"
_MERGE = "application/merge-patch+json"
_POLL_SECONDS = 0.3
_TIMEOUT_SECONDS = 20
_KINDS = {
    "RayService": "ray.io/v1",
    "RayCluster": "ray.io/v1",
    "Pod": "v1",
    "Service": "v1",
    "Event": "v1",
}


class KubeRay:
    """Reconciles every RayService of the cluster until cancelled."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._client: DynamicClient | None = None
        self._doomed: dict[str, datetime] = {}

    async def run(self) -> None:
        """Poll for ever; a failed round is repeated."""
        while True:
            try:
                await self._round()
            except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
                logger.warning("round failed: %s", str(error).splitlines()[0])
            await asyncio.sleep(_POLL_SECONDS)

    async def _round(self) -> None:
        if self._client is None:
            self._client = await DynamicClient(self._api)
        clusters = await self._list("RayCluster")
        pods = await self._list("Pod", label_selector="ray.io/is-ray-node=yes")
        for ray_service in await self._list("RayService"):
            mine = [each for each in clusters if _owned(each, ray_service)]
            try:
                await self._reconcile(ray_service, mine, pods)
            except ApiException as error:
                # Such as a namespace that is being deleted; the others go on.
                logger.warning("%s/%s: %s", *_place(ray_service), " ".join(str(error.body).split())[:300])
        await self._delete_doomed(clusters)

    async def _reconcile(self, ray_service: Json, clusters: list[Json], pods: list[Json]) -> None:
        metadata = ray_service["metadata"]
        if "deletionTimestamp" in metadata:
            await self._patch(ray_service, {"metadata": {"finalizers": None}})
            return
        if FINALIZER not in metadata.get("finalizers", []):
            await self._patch(ray_service, {"metadata": {"finalizers": [FINALIZER]}})
            return  # what was listed is old now
        complaint = problem(ray_service)
        if complaint is not None:
            if await self._write_status(ray_service, statuses.refused(ray_service, complaint)):
                await self._event(ray_service, "Warning", "InvalidRayServiceSpec", complaint)
        elif ray_service["spec"].get("suspend"):
            await self._suspend(ray_service, clusters)
        else:
            await self._serve(ray_service, clusters, pods)

    async def _suspend(self, ray_service: Json, clusters: list[Json]) -> None:
        for each in clusters:
            await self._delete("RayCluster", each)
        for each in services(ray_service):
            await self._delete("Service", each)
        started = any(_condition(ray_service, kind) for kind in ("Suspending", "Suspended"))
        done = started and not clusters
        await self._write_status(ray_service, statuses.suspending(ray_service, done=done))

    async def _serve(self, ray_service: Json, clusters: list[Json], pods: list[Json]) -> None:
        by_name = {each["metadata"]["name"]: each for each in clusters}
        active = by_name.get(_cluster_name(ray_service, "active"))
        pending = by_name.get(_cluster_name(ray_service, "pending"))
        active, pending = await self._wanted_clusters(ray_service, active, pending, clusters)
        views: dict[str, ClusterView] = {}
        for role, each in (("active", active), ("pending", pending)):
            if each is not None:
                views[role] = await self._bring_forward(ray_service, each, pods, role)
        coming = views.get("pending")
        if (
            pending is not None
            and coming is not None
            and coming.application == "RUNNING"
            and coming.endpoints
        ):
            self._doom(active, ray_service)
            views = {"active": coming}
        status = statuses.serving(ray_service, views.get("active"), views.get("pending"))
        if await self._write_status(ray_service, statuses.resumed(ray_service, status)) and "active" in views:
            for each in services(ray_service):
                await self._create("Service", each)

    async def _wanted_clusters(
        self, ray_service: Json, active: Json | None, pending: Json | None, clusters: list[Json]
    ) -> tuple[Json | None, Json | None]:
        """Start a cluster where there is none, or where the newest one no longer fits the spec."""
        newest = pending or active
        spec = ray_service["spec"]
        wanted = cluster_fingerprint(spec["rayClusterConfig"])
        fits = newest is not None and newest["metadata"]["annotations"][FINGERPRINT] == wanted
        in_place_only = spec.get("upgradeStrategy", {}).get("type") == "None" and active is not None
        if fits or in_place_only:
            return active, pending
        if pending is not None:
            self._doom(pending, ray_service)
        # One that was made when the status could not be written.
        for each in clusters:
            unknown = each is not active and each["metadata"]["uid"] not in self._doomed
            if unknown and each["metadata"]["annotations"][FINGERPRINT] == wanted:
                return active, each
        return active, await self._create("RayCluster", ray_cluster(ray_service))

    async def _bring_forward(
        self, ray_service: Json, cluster: Json, pods: list[Json], role: str
    ) -> ClusterView:
        """Make missing pods, deploy the Serve config once the head is ready, and read the state."""
        mine = [
            pod
            for pod in pods
            if pod["metadata"]["labels"].get("ray.io/cluster") == cluster["metadata"]["name"]
        ]
        for pod in missing_pods(cluster, mine):
            await self._create("Pod", pod)
        ready = [pod for pod in mine if _is_ready(pod)]
        heads = [pod for pod in ready if pod["metadata"]["labels"]["ray.io/node-type"] == "head"]
        workers = len(ready) - len(heads)
        floor = sum(group.get("minReplicas", 0) for group in cluster["spec"].get("workerGroupSpecs", []))
        application = _application(ray_service, role)
        if heads and workers >= floor:
            application = await self._deploy(ray_service, cluster, application)
        counted = 0 if ray_service["spec"].get("excludeHeadPodFromServeSvc") else len(heads)
        return ClusterView(
            cluster["metadata"]["name"], bool(heads), workers >= floor, application, workers + counted
        )

    async def _deploy(self, ray_service: Json, cluster: Json, application: str) -> str:
        """PUT a changed config; a first or a failing deployment shows DEPLOYING for a round."""
        wanted = digest(ray_service["spec"].get("serveConfigV2", ""))
        applied = cluster["metadata"]["annotations"].get(SERVE_CONFIG)
        result = statuses.outcome(ray_service)[0]
        if applied == wanted:
            return result
        await self._patch(cluster, {"metadata": {"annotations": {SERVE_CONFIG: wanted}}})
        await self._event(ray_service, "Normal", "UpdatedServeApplications", "Updated serve applications")
        return "RUNNING" if application == result == "RUNNING" else "DEPLOYING"

    def _doom(self, cluster: Json | None, ray_service: Json) -> None:
        if cluster is not None:
            delay = ray_service["spec"].get("rayClusterDeletionDelaySeconds", 60)
            self._doomed.setdefault(cluster["metadata"]["uid"], datetime.now(UTC) + timedelta(seconds=delay))

    async def _delete_doomed(self, clusters: list[Json]) -> None:
        for each in clusters:
            at = self._doomed.get(each["metadata"]["uid"])
            if at is not None and at <= datetime.now(UTC):
                await self._delete("RayCluster", each)

    # The API server.

    async def _resource(self, kind: str) -> Any:
        if self._client is None:
            raise RuntimeError("not connected")
        return await self._client.resources.get(api_version=_KINDS[kind], kind=kind)

    async def _list(self, kind: str, **selectors: str) -> list[Json]:
        resource = await self._resource(kind)
        found = (await resource.get(_request_timeout=_TIMEOUT_SECONDS, **selectors)).to_dict()["items"]
        return [{"apiVersion": _KINDS[kind], "kind": kind, **each} for each in found]

    async def _create(self, kind: str, body: Json) -> Json:
        """Create, or read what is there already."""
        resource = await self._resource(kind)
        namespace = body["metadata"]["namespace"]
        try:
            made = await resource.create(body=body, namespace=namespace, _request_timeout=_TIMEOUT_SECONDS)
        except ApiException as error:
            if error.status != 409:  # noqa: PLR2004 - already there
                raise
            made = await resource.get(name=body["metadata"]["name"], namespace=namespace)
        created: Json = made.to_dict()
        return created

    async def _patch(self, live: Json, patch: Json) -> None:
        resource = await self._resource(live["kind"])
        metadata = live["metadata"]
        await resource.patch(
            body=patch,
            name=metadata["name"],
            namespace=metadata["namespace"],
            content_type=_MERGE,
            _request_timeout=_TIMEOUT_SECONDS,
        )

    async def _delete(self, kind: str, live: Json) -> None:
        resource = await self._resource(kind)
        metadata = live["metadata"]
        try:
            await resource.delete(
                name=metadata["name"], namespace=metadata["namespace"], _request_timeout=_TIMEOUT_SECONDS
            )
        except ApiException as error:
            if error.status != 404:  # noqa: PLR2004 - gone already
                raise

    async def _write_status(self, ray_service: Json, status: Json) -> bool:
        """Write the status if it says something new; tell whether it did."""
        before = ray_service.get("status") or {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for condition in status["conditions"]:
            condition["lastTransitionTime"] = condition["lastTransitionTime"] or now
        if status == before:
            return False
        resource = await self._resource("RayService")
        metadata = {key: ray_service["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
        body = {
            "apiVersion": _KINDS["RayService"],
            "kind": "RayService",
            "metadata": metadata,
            "status": status,
        }
        await resource.status.replace(
            body={**ray_service, **body},
            name=metadata["name"],
            namespace=metadata["namespace"],
            _request_timeout=_TIMEOUT_SECONDS,
        )
        return True

    async def _event(self, ray_service: Json, kind: str, reason: str, message: str) -> None:
        metadata = ray_service["metadata"]
        involved = {key: ray_service[key] for key in ("apiVersion", "kind")}
        involved |= {key: metadata[key] for key in ("name", "namespace", "uid")}
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{suffix(10)}", "namespace": metadata["namespace"]},
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message,
        }
        await self._create("Event", body)


def _place(live: Json) -> tuple[str, str]:
    return live["metadata"]["namespace"], live["metadata"]["name"]


def _owned(cluster: Json, ray_service: Json) -> bool:
    owners = cluster["metadata"].get("ownerReferences", [])
    return any(owner["uid"] == ray_service["metadata"]["uid"] for owner in owners)


def _cluster_name(ray_service: Json, role: str) -> str:
    return str(_role_status(ray_service, role).get("rayClusterName", ""))


def _application(ray_service: Json, role: str) -> str:
    known: Mapping[str, Any] = _role_status(ray_service, role).get("applicationStatuses") or {}
    return str(known.get("imagine", {}).get("status", ""))


def _role_status(ray_service: Json, role: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (ray_service.get("status") or {}).get(f"{role}ServiceStatus") or {}
    return found


def _condition(ray_service: Json, kind: str) -> Json | None:
    conditions = (ray_service.get("status") or {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind and each["status"] == "True"), None)


def _is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions", [])
    return "deletionTimestamp" not in pod["metadata"] and any(
        each["type"] == "Ready" and each["status"] == "True" for each in conditions
    )
