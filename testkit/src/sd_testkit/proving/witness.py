# SPDX-License-Identifier: Apache-2.0
"""A watch that records every creation and deletion of children. The watch bypasses the operator and its proxy."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import aiohttp

from sd_testkit.fault_proxy.streams import lines
from sd_testkit.fault_proxy.upstream import upstream
from sd_testkit.json_types import Json

_PATHS = {
    "RayService": "/apis/ray.io/v1/rayservices",
    "DaemonSet": "/apis/apps/v1/daemonsets",
    "Deployment": "/apis/apps/v1/deployments",
    "Secret": "/api/v1/secrets",
}
_PAUSE = 0.5


@dataclass(frozen=True)
class Sight:
    """One object was created or deleted.

    Attributes:
        what: `created` or `deleted`.
        live: the object.
    """

    what: str
    kind: str
    live: Json

    @property
    def name(self) -> str:
        """Name of the object."""
        return str(self.live["metadata"]["name"])


class Witness:
    """Watches the children of all services.

    The witness is an async context manager.

    Args:
        kubeconfig: kubeconfig of an administrator.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._upstream = upstream(kubeconfig)
        self._sights: list[Sight] = []
        self._known: dict[str, dict[str, Json]] = {kind: {} for kind in _PATHS}

    async def __aenter__(self) -> Self:
        """Start the watches."""
        connector = aiohttp.TCPConnector(ssl=self._upstream.context or False)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), headers=self._upstream.headers
        )
        self._tasks = [asyncio.create_task(self._watch(kind)) for kind in _PATHS]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    def seen(self, namespace: str, service: str) -> Counter[str]:
        """Return how often each child of a service was created and deleted, with keys such as `created RayService NAME`."""
        return Counter(
            f"{each.what} {each.kind} {each.name.replace(service, 'NAME')}"
            for each in self._sights
            if each.live["metadata"]["namespace"] == namespace
            and (each.live["metadata"].get("labels") or {}).get("sdservice.dev/name") == service
        )

    async def _watch(self, kind: str) -> None:
        """List, then watch. Start again whenever the API server is not reachable or has no history left."""
        while True:
            try:
                version = await self._list(kind)
                await self._follow(kind, version)
            except (aiohttp.ClientError, OSError, KeyError, ValueError):
                await asyncio.sleep(_PAUSE)

    async def _list(self, kind: str) -> str:
        async with self._session.get(self._upstream.server + _PATHS[kind]) as answer:
            found = await answer.json()
        now = {each["metadata"]["uid"]: each for each in found["items"]}
        for uid in [uid for uid in self._known[kind] if uid not in now]:
            self._gone(kind, self._known[kind][uid])
        for live in now.values():
            self._there(kind, live)
        return str(found["metadata"]["resourceVersion"])

    async def _follow(self, kind: str, version: str) -> None:
        query = {"watch": "true", "resourceVersion": version}
        async with self._session.get(self._upstream.server + _PATHS[kind], params=query) as answer:
            async for line in lines(answer.content):
                event = json.loads(line)
                if event["type"] == "DELETED":
                    self._gone(kind, event["object"])
                elif event["type"] in {"ADDED", "MODIFIED"}:
                    self._there(kind, event["object"])
                else:
                    return

    def _there(self, kind: str, live: Json) -> None:
        if live["metadata"]["uid"] not in self._known[kind]:
            self._sights.append(Sight("created", kind, live))
        self._known[kind][live["metadata"]["uid"]] = live

    def _gone(self, kind: str, live: Json) -> None:
        if self._known[kind].pop(live["metadata"]["uid"], None) is not None:
            self._sights.append(Sight("deleted", kind, live))
