# SPDX-License-Identifier: Apache-2.0
"""One namespace with its own operator behind its own proxy. Many of them run side by side."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import ClientError
from kubernetes.aio.client import ApiException

from sd_testkit.cluster.api_server import ApiServer, suffix
from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.fault_proxy import FaultProxy, Match, Relay, Reply
from sd_testkit.json_types import Json
from sd_testkit.operator_process import OperatorProcess
from sd_testkit.proving import oracles, state
from sd_testkit.proving.kubelet import Kubelet
from sd_testkit.proving.state import State
from sd_testkit.proving.witness import Witness

RESYNC_SECONDS = 1.0
CALM_SECONDS = 2.5 * RESYNC_SECONDS
"""After so long without a write, no write will follow: two resyncs have checked all objects and found no difference."""
SETTLED_SECONDS = 4.0
"""KubeRay needs a moment to start work on a request. After so long it has no more status to report."""
SPEC = {"model": {"preset": "shapes"}, "replicas": {"min": 1, "max": 1}}
DASHBOARDS = Match.of("get", "services", subresource="proxy")
_EVENT_SECONDS = 0.5  # The status is written first, and its Event follows.
_POLL = 0.25


class NotConverged(AssertionError):
    """The end was not reached in time. The message lists the differences."""


class Lane:
    """One namespace in which one operator works.

    Args:
        control_plane: the cluster.
        server: its API server, with an administrator's access.
        witness: the watch on the children.
        folder: folder for logs.
        namespace: the namespace that the operator serves.
        launcher: a script that starts the operator as in a pod, with the file of its token as argument. The proxy
            then uses TLS. None: the operator starts outside the cluster.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        server: ApiServer,
        witness: Witness,
        folder: Path,
        namespace: str,
        *,
        launcher: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.namespace = namespace
        self.server = server
        self.witness = witness
        self.token = folder / "token"
        at = control_plane.folder
        tls = (at / "apiserver.crt", at / "apiserver.key", at / "ca.crt") if launcher else None
        command = (str(launcher), str(self.token)) if launcher else ("-m", "sd_operator")
        self.proxy = FaultProxy(control_plane.kubeconfig, folder, tls)
        self.operator = OperatorProcess(control_plane, folder, command)
        self.kubelet = Kubelet(self.operator)
        self._environment: dict[str, str] = {}

    async def open(self, more_namespaces: Sequence[str] = (), **environment: str) -> None:
        """Start the proxy and the operator. The operator also serves `more_namespaces`, in front of this one."""
        await self.proxy.__aenter__()
        # The operator polls dashboards every 10 to 30 s. Without this rule, each test would wait for the next poll.
        self._silent = self.proxy.add(DASHBOARDS, Reply(503))
        self._environment = {
            "KUBECONFIG": str(self.proxy.kubeconfig),
            "SDSERVICE_WATCH_NAMESPACES": ",".join([*more_namespaces, self.namespace]),
            "SDSERVICE_RESYNC_SECONDS": str(RESYNC_SECONDS),
            "SDSERVICE_FULL_RESYNC_SECONDS": str(RESYNC_SECONDS),
            # Leader election has its own tests. Here no operator waits for the Lease of one that was killed.
            "SDSERVICE_LEADER_ELECTION": "false",
            **environment,
        }
        self.start()

    def let_pods_answer(self) -> None:
        """Let the operator reach dashboards and services. The proxy streams their responses from now on."""
        self.proxy.remove(self._silent)
        self.proxy.add(DASHBOARDS, Relay())

    async def close(self) -> None:
        """Stop the operator and the proxy."""
        await self.kubelet.stop()
        await asyncio.to_thread(self.operator.stop)  # The shutdown of the operator still needs the proxy.
        await self.proxy.__aexit__()

    def start(self, **environment: str) -> None:
        """Start the operator. An operator that ends by itself is started again, as a kubelet does."""
        self.kubelet.start({**self._environment, **environment})

    async def kill(self) -> None:
        """Kill the operator at once."""
        await self.kubelet.stop()
        self.operator.kill()

    async def apply(self, name: str, spec: Json) -> None:
        """Apply a service, as a user does."""
        await self.server.apply(self.resource(name) | {"spec": spec})

    async def delete(self, name: str) -> None:
        """Delete a service, as a user does."""
        await self.server.delete(self.resource(name))

    async def clear(self, but: str) -> None:
        """Delete all services, except one, and wait until they are gone."""

        async def others() -> list[Json]:
            return [each for each in await self.services() if each["metadata"]["name"] != but]

        for each in await others():
            await self.server.delete(each)

        async def gone() -> bool:
            return not await others()

        await self.until(gone)

    def resource(self, name: str) -> Json:
        """Return a service by name, without a spec."""
        return {
            "apiVersion": "sdservice.dev/v1alpha1",
            "kind": "StableDiffusionService",
            "metadata": {"name": name, "namespace": self.namespace},
        }

    async def service(self, name: str) -> Json | None:
        """Return the live service."""
        return await self.server.get("StableDiffusionService", self.namespace, name)

    async def services(self) -> list[Json]:
        """Return all live services of the namespace."""
        return await self.server.list_all("StableDiffusionService", namespace=self.namespace)

    async def children(self) -> list[Json]:
        """Return the live children of all services in the namespace."""
        found = await asyncio.gather(
            *(self.server.list_all(kind, namespace=self.namespace) for kind in state.KINDS)
        )
        return [each for kind in found for each in kind]

    async def state(self, name: str) -> State:
        """Return the comparable state of the service; empty if there is no service."""
        service = await self.service(name)
        return {} if service is None else state.of(service, await self.children())

    async def until(self, condition: Callable[[], Awaitable[object]], within: float = 120) -> float:
        """Wait until an async condition holds.

        Return the seconds that this took.

        Raises:
            NotConverged: the condition did not hold in time.
        """
        began = time.monotonic()
        while not await condition():
            if time.monotonic() - began > within:
                raise NotConverged(
                    f"the condition did not hold within {within:.0f} s\n{self.operator.log()[-2000:]}"
                )
            await asyncio.sleep(_POLL)
        return time.monotonic() - began

    async def serve(self, **more: Any) -> tuple[str, State]:
        """Bring up a service of a new name with KubeRay's help. Return its name and its final state."""
        name = fresh_name()
        await self.apply(name, {**SPEC, **more})
        return name, await self.settled(name)

    async def settled(self, name: str, *, served: bool = True, within: float = 180) -> State:
        """Wait until the status describes the latest spec and all writes have stopped.

        Return the final state.

        Args:
            name: name of the service.
            served: whether KubeRay runs. The service then becomes Ready or suspended, and no upgrade is in progress.
            within: time limit in seconds.
        """

        async def calm() -> bool:
            live = await self.service(name) or {}
            if oracles.told_truly(live, {}) or self.calm_for() < SETTLED_SECONDS:
                return False
            told = state.conditions(live)
            is_final = told["Ready"][0] == "True" or told["Ready"][1] == "Suspended"
            return not served or (is_final and told.get("Upgrading", ("False", ""))[0] == "False")

        await self.until(calm, within)
        return await self.state(name)

    def calm_for(self) -> float:
        """Return the seconds since the operator's last attempt to write."""
        entries = self.proxy.journal.entries
        tried = [each.at for each in entries if each.request.is_write and not each.is_election]
        return time.monotonic() - max(tried, default=float("-inf"))

    async def reaches(self, name: str, wanted: State, within: float = 120) -> float:
        """Wait until the service reaches the end of the run without faults.

        Return the seconds.

        Raises:
            NotConverged: the service did not reach that end; the message lists the differences.
        """
        began = time.monotonic()
        while True:
            try:
                found = oracles.same_end(wanted, await self.state(name))
            except (
                ApiException,
                ClientError,
                TimeoutError,
            ) as error:  # The API server may have just come back.
                found = [f"the API server does not answer: {error}"]
            if not found and self.calm_for() > _EVENT_SECONDS:
                return time.monotonic() - began
            if time.monotonic() - began > within:
                raise NotConverged("\n".join([*found[:20], self.operator.log()[-2000:]]))
            await asyncio.sleep(_POLL)

    async def stays(self, name: str, wanted: State, seconds: float = CALM_SECONDS) -> list[str]:
        """Check (a), (c), (d) and (f) for a while after the end was reached. Return the failures."""
        mark, before = self.proxy.journal.mark(), await self._versions(name)
        await asyncio.sleep(seconds)
        entries, after = self.proxy.journal.since(mark), await self._versions(name)
        service, services = await self.service(name), await self.services()
        return [
            *oracles.same_end(wanted, await self.state(name)),
            *oracles.quiet(entries),
            *oracles.stable(before, after),
            *oracles.not_busy(entries, seconds, self.most_requests(len(services))),
            *oracles.no_orphans([service] if service else [], await self._labelled(name)),
        ]

    @staticmethod
    def most_requests(services: int) -> float:
        """Return the permitted requests per minute for idle services.

        The limit is 20 for each pass over each service, 9 for each resync, and 60 for watches.
        """
        return 60 / RESYNC_SECONDS * (20 * services + 9) + 60

    async def _labelled(self, name: str) -> list[Json]:
        return [
            each
            for each in await self.children()
            if (each["metadata"].get("labels") or {}).get(state.NAME_LABEL) == name
        ]

    async def _versions(self, name: str) -> dict[str, str]:
        """Return the versions that only the operator changes. Other programs write the status of children."""
        service = await self.service(name)
        if service is None:
            return {}
        found = {
            f"{each['kind']} {each['metadata']['name']}": str(each["metadata"].get("generation"))
            for each in await self.children()
            if state.belongs_to(each, service)
        }
        return found | {"the service": service["metadata"]["resourceVersion"]}


def fresh_name() -> str:
    """Return a name that is not part of any other word."""
    return f"q{suffix(7)}"
