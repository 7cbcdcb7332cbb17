# SPDX-License-Identifier: Apache-2.0
"""One namespace with an operator of its own, behind a proxy of its own: many of them run side by side."""

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
"""Without a write for so long nothing more is to come: two resyncs looked at everything and found nothing."""
SETTLED_SECONDS = 4.0
"""KubeRay takes a moment to begin with what was asked of it; so long it has nothing more to tell."""
SPEC = {"model": {"preset": "shapes"}, "replicas": {"min": 1, "max": 1}}
DASHBOARDS = Match.of("get", "services", subresource="proxy")
_EVENT_SECONDS = 0.5  # the status is written first, and then the Event that tells of it
_POLL = 0.25


class NotConverged(AssertionError):
    """The end was not reached in time; the message says what differs."""


class Lane:
    """Where one operator works.

    Args:
        control_plane: the cluster.
        server: its API server, as an administrator reaches it.
        witness: who sees the children.
        folder: for logs.
        namespace: which it serves.
        launcher: a script that starts the operator as in a pod, with the file of its token as argument; the proxy has
            TLS then. None: it is started beside the cluster.
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
        """Start the proxy and the operator, which serves more namespaces before this one."""
        await self.proxy.__aenter__()
        # Dashboards are asked every 10 to 30 s; the end would have to wait for what they tell.
        self._silent = self.proxy.add(DASHBOARDS, Reply(503))
        self._environment = {
            "KUBECONFIG": str(self.proxy.kubeconfig),
            "SDSERVICE_WATCH_NAMESPACES": ",".join([*more_namespaces, self.namespace]),
            "SDSERVICE_RESYNC_SECONDS": str(RESYNC_SECONDS),
            "SDSERVICE_FULL_RESYNC_SECONDS": str(RESYNC_SECONDS),
            # Who leads has tests of its own; here nobody waits for a Lease of one that was killed.
            "SDSERVICE_LEADER_ELECTION": "false",
            **environment,
        }
        self.start()

    def let_pods_answer(self) -> None:
        """From now on the operator reaches dashboards and services, whose answers are given on as they come."""
        self.proxy.remove(self._silent)
        self.proxy.add(DASHBOARDS, Relay())

    async def close(self) -> None:
        """End both."""
        await self.kubelet.stop()
        await asyncio.to_thread(self.operator.stop)  # it says good-bye through the proxy
        await self.proxy.__aexit__()

    def start(self, **environment: str) -> None:
        """Start the operator; one that ends by itself is started again, as a kubelet would."""
        self.kubelet.start({**self._environment, **environment})

    async def kill(self) -> None:
        """End the operator without a word."""
        await self.kubelet.stop()
        self.operator.kill()

    async def apply(self, name: str, spec: Json) -> None:
        """Apply a service as a user does."""
        await self.server.apply(self.resource(name) | {"spec": spec})

    async def delete(self, name: str) -> None:
        """Delete a service as a user does."""
        await self.server.delete(self.resource(name))

    async def clear(self, but: str) -> None:
        """Delete every other service, and wait until they are gone."""

        async def others() -> list[Json]:
            return [each for each in await self.services() if each["metadata"]["name"] != but]

        for each in await others():
            await self.server.delete(each)

        async def gone() -> bool:
            return not await others()

        await self.until(gone)

    def resource(self, name: str) -> Json:
        """A service by name, without spec."""
        return {
            "apiVersion": "sdservice.dev/v1alpha1",
            "kind": "StableDiffusionService",
            "metadata": {"name": name, "namespace": self.namespace},
        }

    async def service(self, name: str) -> Json | None:
        """The live service."""
        return await self.server.get("StableDiffusionService", self.namespace, name)

    async def services(self) -> list[Json]:
        """All live services here."""
        return await self.server.list_all("StableDiffusionService", namespace=self.namespace)

    async def children(self) -> list[Json]:
        """Live children of all services here."""
        found = await asyncio.gather(
            *(self.server.list_all(kind, namespace=self.namespace) for kind in state.KINDS)
        )
        return [each for kind in found for each in kind]

    async def state(self, name: str) -> State:
        """What the service amounts to now; empty where there is none."""
        service = await self.service(name)
        return {} if service is None else state.of(service, await self.children())

    async def until(self, condition: Callable[[], Awaitable[object]], within: float = 120) -> float:
        """Wait until an async condition holds; return the seconds it took.

        Raises:
            NotConverged: it never did.
        """
        began = time.monotonic()
        while not await condition():
            if time.monotonic() - began > within:
                raise NotConverged(f"not within {within:.0f} s\n{self.operator.log()[-2000:]}")
            await asyncio.sleep(_POLL)
        return time.monotonic() - began

    async def serve(self, **more: Any) -> tuple[str, State]:
        """Bring up a service of a new name with KubeRay's help; return that, and the end."""
        name = fresh_name()
        await self.apply(name, {**SPEC, **more})
        return name, await self.settled(name)

    async def settled(self, name: str, *, served: bool = True, within: float = 180) -> State:
        """Wait until its status is of the latest spec and nothing is written any more; return what there is then.

        Args:
            name: of the service.
            served: whether KubeRay is there, so that it will be Ready, or suspended, and no upgrade goes on.
            within: seconds.
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
        """Seconds since the operator last tried to write."""
        entries = self.proxy.journal.entries
        tried = [each.at for each in entries if each.request.is_write and not each.is_election]
        return time.monotonic() - max(tried, default=float("-inf"))

    async def reaches(self, name: str, wanted: State, within: float = 120) -> float:
        """Wait until the end of the run without faults is reached; return the seconds.

        Raises:
            NotConverged: it was not; with what differs.
        """
        began = time.monotonic()
        while True:
            try:
                found = oracles.same_end(wanted, await self.state(name))
            except (ApiException, ClientError, TimeoutError) as error:  # it may just have come back
                found = [f"the API server does not answer: {error}"]
            if not found and self.calm_for() > _EVENT_SECONDS:
                return time.monotonic() - began
            if time.monotonic() - began > within:
                raise NotConverged("\n".join([*found[:20], self.operator.log()[-2000:]]))
            await asyncio.sleep(_POLL)

    async def stays(self, name: str, wanted: State, seconds: float = CALM_SECONDS) -> list[str]:
        """(a), (c), (d) and (f) for a while after the end was reached."""
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
        """Requests per minute of so many idle services: 20 for each pass over each, 9 for each resync, 60 for watches."""
        return 60 / RESYNC_SECONDS * (20 * services + 9) + 60

    async def _labelled(self, name: str) -> list[Json]:
        return [
            each
            for each in await self.children()
            if (each["metadata"].get("labels") or {}).get(state.NAME_LABEL) == name
        ]

    async def _versions(self, name: str) -> dict[str, str]:
        """What the operator could have changed: the status of a child is written by others."""
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
    """A name that is part of no other word."""
    return f"q{suffix(7)}"
