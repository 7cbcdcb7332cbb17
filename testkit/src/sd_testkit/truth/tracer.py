# SPDX-License-Identifier: Apache-2.0
"""Record KubeRay's changes in one namespace as JSON lines that `sd_testkit.truth.recording.from_trace` reads."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from sd_testkit.cluster.api_server import ApiServer
from sd_testkit.cluster.snapshot import look
from sd_testkit.json_types import Json
from sd_testkit.truth.recording import slim

_PERIOD = 0.7


@dataclass
class Tracer:
    """Samples RayServices, RayClusters, their pods, Services and EndpointSlices, and the Events about them.

    Attributes:
        server: the API server that has the objects.
        namespace: namespace of all objects.
        file: receives a line for each state that differs from the previous sample.
    """

    server: ApiServer
    namespace: str
    file: Path
    _last: dict[str, Json] = field(default_factory=dict, init=False)
    _began: float = field(default_factory=time.monotonic, init=False)

    def step(self, name: str) -> None:
        """Start a step. Later states belong to it."""
        self._write({"step": name})

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            await self._sample()
            await asyncio.sleep(_PERIOD)

    async def _sample(self) -> None:
        seen = await look(self.server)
        found = [*seen.ray_services, *seen.ray_clusters, *seen.pods, *seen.services, *seen.slices]
        found += [each for each in await self.server.list_all("Event") if _is_about_ray(each)]
        states = {
            f"{each['kind']}/{each['metadata']['name']}": slim(each)
            for each in found
            if each["metadata"]["namespace"] == self.namespace and not _is_foreign(each)
        }
        for name in self._last.keys() - states.keys():
            self._write({"object": name, "gone": True})
        for name, state in states.items():
            if self._last.get(name) != state:
                self._write({"object": name, **state})
        self._last = states

    def _write(self, entry: Json) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps({"t": round(time.monotonic() - self._began, 1), **entry}) + "\n")


def _is_about_ray(event: Json) -> bool:
    return str(event["involvedObject"]["kind"]).startswith("Ray")


def _is_foreign(live: Json) -> bool:
    """Return whether a Service was not created by KubeRay."""
    return live["kind"] == "Service" and "selector" not in live["spec"]
