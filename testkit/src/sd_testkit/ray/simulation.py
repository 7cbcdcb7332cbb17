# SPDX-License-Identifier: Apache-2.0
"""Advance every Ray pod and its programs by one step: kubelet, Ray, Serve and autoscaler in one place.

On real nodes the kubelet is real too. The kubelet starts and ends the containers, and only the Ray in them is simulated.
"""

import base64
import itertools
import logging
import random
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from sd_testkit.cluster.api_server import ApiServer
from sd_testkit.cluster.snapshot import Snapshot, by_group, is_ready
from sd_testkit.json_types import Json
from sd_testkit.ray import kubelet
from sd_testkit.ray.autoscaler import Autoscaler
from sd_testkit.ray.network import Network
from sd_testkit.ray.pace import APPLICATION, Pace, held, hostile
from sd_testkit.ray.resources import of_node
from sd_testkit.ray.serve import Serve
from sd_testkit.ray.session import Session

logger = logging.getLogger(__name__)

DASHBOARD_PORT = 8265
SERVE_PORT = 8000
_FIRST_ADDRESS = int(IPv4Address("10.64.0.1"))


@dataclass
class _Life:
    """The state of one pod.

    Attributes:
        name: name of the pod.
        since: monotonic seconds at the start of its current phase.
        session: the Ray cluster that the pod joined; None before that.
        probes: number of successive probes that found its proxy healthy.
    """

    name: str
    since: float
    address: str = ""
    session: Session | None = None
    dying_since: float | None = None
    probes: int = 0


@dataclass
class _Cluster:
    """The state of a RayCluster.

    Attributes:
        keeps_state: whether its state outlives a head (`gcsFaultToleranceOptions`).
    """

    session: Session | None = None
    keeps_state: bool = False
    autoscaler: Autoscaler = field(default_factory=Autoscaler)


class Ray:
    """Every simulated Ray cluster of a Kubernetes cluster.

    Args:
        server: the API server.
        socket: the socket through which the API server dials pods.
        real_nodes: names of nodes whose kubelet is not simulated.
        pace: durations of the steps.
    """

    def __init__(
        self,
        server: ApiServer,
        socket: Path,
        real_nodes: frozenset[str] = frozenset(),
        pace: Pace | None = None,
    ) -> None:
        self.network = Network(socket)
        self.pace = pace or Pace()
        self._server = server
        self._real_nodes = real_nodes
        self._lives: dict[str, _Life] = {}
        self._clusters: dict[str, _Cluster] = {}
        # Pods may still have addresses of an earlier run in their status. These addresses are not used again.
        start = _FIRST_ADDRESS + random.randrange(2**20)  # noqa: S311 - nothing to guess
        self._addresses = (str(IPv4Address(number)) for number in itertools.count(start))

    def session(self, cluster: Json) -> Session | None:
        """Return the running Ray cluster behind a RayCluster, or None while its head does not run."""
        found = self._clusters.get(cluster["metadata"]["uid"], _Cluster()).session
        return found if found is not None and found.head_alive else None

    def session_of(self, pod: Json) -> Session | None:
        """Return the Ray cluster of a pod's node, or None while its Ray does not run."""
        life = self._lives.get(pod["metadata"]["uid"])
        return life.session if life is not None else None

    async def step(self, seen: Snapshot) -> None:
        """Advance everything in the snapshot by one step."""
        uids = {each["metadata"]["uid"] for each in seen.pods}
        for uid in [each for each in self._lives if each not in uids]:
            await self._end(self._lives.pop(uid))
        for cluster in seen.ray_clusters:
            await self._step_cluster(seen, cluster)
        owned = {each["metadata"]["uid"] for each in seen.ray_clusters}
        self._clusters = {uid: each for uid, each in self._clusters.items() if uid in owned}
        for pod in seen.pods:  # These belong to clusters that are deleted.
            if pod["metadata"]["ownerReferences"][0]["uid"] not in owned:
                await self._step_pod(pod, _Cluster(), None, {})

    async def _step_cluster(self, seen: Snapshot, cluster: Json) -> None:
        mine = self._clusters.setdefault(cluster["metadata"]["uid"], _Cluster())
        mine.keeps_state = "gcsFaultToleranceOptions" in cluster["spec"]
        ray_service = seen.ray_service_of(cluster)
        pods = seen.pods_of(cluster)
        groups = {each["groupName"]: each for each in cluster["spec"].get("workerGroupSpecs", [])}
        groups["headgroup"] = cluster["spec"]["headGroupSpec"]
        for pod in sorted(pods, key=lambda each: not _is_head(each)):
            await self._step_pod(pod, mine, ray_service, groups)
        session = mine.session
        if session is None or not session.head_alive:
            return
        session.proxy_starts = not held(ray_service, "proxy")
        session.serve.step(
            session.nodes,
            time.monotonic(),
            held=held(ray_service, "application"),
            scripted=_scripted(ray_service, cluster),
        )
        if cluster["spec"].get("enableInTreeAutoscaling"):
            await self._scale(cluster, mine, session, pods)

    async def _scale(self, cluster: Json, mine: _Cluster, session: Session, pods: list[Json]) -> None:
        workers = {
            name: [each["metadata"]["name"] for each in members] for name, members in by_group(pods).items()
        }
        for plan in mine.autoscaler.plans(cluster, session, workers, time.monotonic()):
            path = f"/spec/workerGroupSpecs/{plan.group}"
            operations: list[Json] = [{"op": "add", "path": f"{path}/replicas", "value": plan.replicas}]
            if plan.leaving:
                strategy = {"workersToDelete": list(plan.leaving)}
                operations.append({"op": "add", "path": f"{path}/scaleStrategy", "value": strategy})
            await self._server.json_patch(cluster, operations)

    async def _step_pod(
        self, pod: Json, mine: _Cluster, ray_service: Json | None, groups: dict[str, Json]
    ) -> None:
        metadata = pod["metadata"]
        life = self._lives.setdefault(metadata["uid"], _Life(metadata["name"], time.monotonic()))
        if pod["spec"].get("nodeName") in self._real_nodes:
            await self._follow(pod, life, mine, groups)
            return
        if "deletionTimestamp" in metadata:
            await self._die(pod, life)
            return
        phase = (pod.get("status") or {}).get("phase", "Pending")
        if phase == "Pending" and pod["spec"].get("nodeName"):
            await self._start(pod, life, mine, groups)
        elif phase == "Running" and life.session is None:
            # An earlier run of the testkit left this pod behind, and its Ray has ended.
            await self._server.merge_status(pod, kubelet.failed(pod, 1))
        elif phase == "Running":
            await self._probe(pod, life, mine, ray_service)

    async def _start(self, pod: Json, life: _Life, mine: _Cluster, groups: dict[str, Json]) -> None:
        if not (pod.get("status") or {}).get("containerStatuses"):
            await self._server.merge_status(pod, kubelet.creating(pod))
            life.since = time.monotonic()
            return
        group = groups.get(pod["metadata"]["labels"]["ray.io/group"])
        if group is None or kubelet.missing_image(pod) or time.monotonic() - life.since < self.pace.start:
            return
        await self._join(pod, life, mine, group)
        if life.session is not None:
            await self._server.merge_status(pod, kubelet.running(pod, life.address, ready=False))

    async def _follow(self, pod: Json, life: _Life, mine: _Cluster, groups: dict[str, Json]) -> None:
        """Follow a pod of a real kubelet: it is a node of Ray while its container runs.

        The simulation does not write to it.
        """
        group = groups.get(pod["metadata"]["labels"]["ray.io/group"])
        if not _container_runs(pod):
            await self._end(life)
        elif life.session is None and group is not None:
            await self._join(pod, life, mine, group, pod["status"]["podIP"])
        if life.session is not None:
            await self._listen(pod, life, life.session)

    async def _join(
        self, pod: Json, life: _Life, mine: _Cluster, group: Json, address: str | None = None
    ) -> None:
        """Start Ray in a pod. A head starts a session, and a worker joins that of its head."""
        name = pod["metadata"]["name"]
        if _is_head(pod):
            if mine.session is not None and mine.keeps_state:
                mine.session.resume(name)
            else:
                mine.session = Session(name, self.pace, await self._token(pod), Serve(self.pace))
        elif mine.session is None or not mine.session.head_alive:
            return  # Its init container waits for the head.
        session = mine.session
        life.address, life.session, life.since = address or next(self._addresses), session, time.monotonic()
        session.join(name, of_node(group), life.address)

    async def _listen(self, pod: Json, life: _Life, session: Session) -> None:
        """Start the servers of dashboard and proxy."""
        if _is_head(pod):
            await self.network.start(life.address, DASHBOARD_PORT, session.dashboard())
        if session.has_proxy(life.name):
            await self.network.start(life.address, SERVE_PORT, session.proxy(life.name))

    async def _probe(self, pod: Json, life: _Life, mine: _Cluster, ray_service: Json | None) -> None:
        session = life.session
        if session is None:
            return
        self.network.misbehave(life.address, does=hostile(ray_service))
        now = time.monotonic()
        if _is_head(pod):
            up = now - life.since >= self.pace.head_ready and not held(ray_service, "head")
            if up:
                await self.network.start(life.address, DASHBOARD_PORT, session.dashboard())
            ready = up or is_ready(pod)
        elif self._is_lost(session, mine):
            await self._end(life)
            await self._server.merge_status(pod, kubelet.failed(pod, 1))
            return
        else:
            life.probes = life.probes + 1 if session.has_proxy(life.name) else 0
            ready = life.probes >= self.pace.probes
        if session.has_proxy(life.name):
            await self.network.start(life.address, SERVE_PORT, session.proxy(life.name))
        if ready != is_ready(pod):
            await self._server.merge_status(pod, kubelet.running(pod, life.address, ready=ready))

    def _is_lost(self, session: Session, mine: _Cluster) -> bool:
        """Return whether a worker ends itself.

        A worker ends itself if its head is gone for long. A worker also ends itself if a new head, which does not know the
        worker, deploys an application.

        If the state outlives the head, KubeRay makes workers wait ten minutes. That is longer than any test.
        """
        if mine.keeps_state:
            return False
        if session.head_lost is not None and time.monotonic() - session.head_lost > self.pace.orphan:
            return True
        latest = mine.session
        return latest is not None and latest is not session and bool(latest.serve.deployments)

    async def _die(self, pod: Json, life: _Life) -> None:
        """End a deleted pod in steps.

        Ray does not receive SIGTERM behind KubeRay's shell, so the pod serves until its grace period ends.

        A head stays Running and Ready for some time without Ray: its autoscaler ends when it notices the loss.
        """
        now = time.monotonic()
        life.dying_since = life.dying_since or now
        if life.session is not None:
            if now - life.dying_since < self.pace.grace:
                return
            await self._end(life)
            life.since = now
        if (pod.get("status") or {}).get("phase") != "Running":
            await self._server.delete(pod, grace_seconds=0)
        elif not _is_head(pod) or now - life.since >= self.pace.linger:
            # The pod is deleted a round later, so that other controllers see it Failed.
            await self._server.merge_status(pod, kubelet.failed(pod, 137))

    async def _end(self, life: _Life) -> None:
        """End the pod's processes and servers."""
        if life.session is None:
            return
        life.session.leave(life.name)
        life.session = None
        for port in (DASHBOARD_PORT, SERVE_PORT):
            await self.network.stop(life.address, port)

    async def _token(self, pod: Json) -> str:
        """Return Ray's token, as the head receives it; empty if authentication is off."""
        cluster = await self._server.get(
            "RayCluster", pod["metadata"]["namespace"], pod["metadata"]["labels"]["ray.io/cluster"]
        )
        options = (cluster or {}).get("spec", {}).get("authOptions", {})
        if options.get("mode") != "token" or "secretName" not in options:
            return ""
        secret = await self._server.get("Secret", pod["metadata"]["namespace"], options["secretName"])
        return base64.b64decode((secret or {}).get("data", {}).get("auth_token", "")).decode()


def _scripted(ray_service: Json | None, cluster: Json) -> str:
    """Return the application status that a test has set on the RayService. The status applies to the newest cluster only."""
    if ray_service is None:
        return ""
    pending = ((ray_service.get("status") or {}).get("pendingServiceStatus") or {}).get("rayClusterName")
    if pending and pending != cluster["metadata"]["name"]:
        return ""
    return str((ray_service["metadata"].get("annotations") or {}).get(APPLICATION, ""))


def _container_runs(pod: Json) -> bool:
    """Return whether the Ray container runs, according to its kubelet."""
    told = (pod.get("status") or {}).get("containerStatuses") or [{}]
    return "running" in (told[0].get("state") or {})


def _is_head(pod: Json) -> bool:
    return bool(pod["metadata"]["labels"].get("ray.io/node-type") == "head")
