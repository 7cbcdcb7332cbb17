# SPDX-License-Identifier: Apache-2.0
"""Two hundred services with pods that drop packets, and the edits of a healthy one: queue, passes and polls together.

The tests run in virtual time, and their API server takes five milliseconds for each response. benchmarks/silent_dashboards.py
runs the same on a real API server.
"""

import asyncio
import copy
import statistics
from datetime import UTC, datetime, timedelta

import pytest

from sd_operator.builders.ray_service import ray_service
from sd_operator.builders.serve_config import serve_config
from sd_operator.controller.work_queue import WorkQueue
from sd_operator.errors import RayTooSlow
from sd_operator.kube import POD, RAY_CLUSTER, RAY_SERVICE, SERVICE
from sd_operator.naming import Key
from sd_operator.observe.node_cache import NodeReader
from sd_operator.observe.observer import Observer
from sd_operator.observe.preload_reader import PreloadReader
from sd_operator.ray.probe_poller import ProbePoller
from sd_operator.ray.serve_poller import ServePoller
from sd_operator.ray.serve_reader import Asks, ServeReader
from sd_operator.reconcile.reconciler import Reconciler
from sd_operator.settings import Settings

SILENT = 200
EDITS = 60
START = datetime(2026, 1, 2, tzinfo=UTC)
HEALTHY = Key("team", "healthy")
ANSWER_SECONDS = 0.005


def now():
    return START + timedelta(seconds=asyncio.get_running_loop().time())


class World:
    """An API server of so many services that serve, each with a head and a worker."""

    def __init__(self, resource, keys):
        self.live = {key: self._objects(resource, key) for key in keys}
        self.config = serve_config(resource().spec)
        self.written = []

    @staticmethod
    def _objects(resource, key):
        cluster = f"{key.name}-a"
        owner = [{"uid": key.name, "controller": True, "kind": "StableDiffusionService", "name": key.name}]
        labels = {"ray.io/cluster": cluster, "ray.io/is-ray-node": "yes"}
        spec = resource(imagePreload={"mode": "Disabled"}).spec.model_dump(
            by_alias=True, exclude_unset=True, mode="json"
        )
        body = {"name": key.name, "namespace": key.namespace, "uid": key.name, "generation": 1}
        serving = {"rayClusterName": cluster, "applicationStatuses": {"imagine": {"status": "RUNNING"}}}
        return {
            SERVICE: {"apiVersion": "sdservice.dev/v1alpha1", "kind": SERVICE.name, "metadata": body, "spec": spec},
            RAY_SERVICE: {
                "apiVersion": "ray.io/v1",
                "kind": RAY_SERVICE.name,
                "metadata": {"name": key.name, "namespace": "team", "uid": f"{key.name}-r", "resourceVersion": "0", "generation": 1, "ownerReferences": owner},
                "spec": ray_service(resource(), Settings())["spec"],
                "status": {"observedGeneration": 9, "numServeEndpoints": 1, "activeServiceStatus": serving},
            },
            POD: [
                {
                    "metadata": {"name": f"{key.name}-{kind}", "uid": f"{key.name}-{kind}", "labels": labels | {"ray.io/node-type": kind, "ray.io/group": "gpu"}},
                    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
                }
                for kind in ("head", "worker")
            ],
        }  # fmt: skip

    def edit(self, key, steps):
        live = self.live[key][SERVICE]
        live["metadata"]["generation"] += 1
        live["spec"]["limits"] = {"maxSteps": steps}

    async def get(self, kind, namespace, name):
        await asyncio.sleep(ANSWER_SECONDS)
        found = self.live[Key(namespace, name)].get(kind) if kind in {SERVICE, RAY_SERVICE} else None
        return copy.deepcopy(found)

    async def list(self, kind, namespace, labels=None, fields=None):
        await asyncio.sleep(ANSWER_SECONDS)
        found = self.live.get(Key(namespace, (labels or {}).get("sdservice.dev/name", "")), {})
        return copy.deepcopy(found.get(kind, [])) if kind in {POD, RAY_CLUSTER} else []

    async def apply(self, body, manager):
        await asyncio.sleep(ANSWER_SECONDS)
        key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
        if body["kind"] == RAY_SERVICE.name:
            live = self.live[key][RAY_SERVICE]
            live["spec"] = body["spec"]
            live["metadata"]["resourceVersion"] = str(len(self.written) + 1)
            self.written.append((key, body["spec"]["serveConfigV2"], now()))
            return copy.deepcopy(live)
        return body | {"metadata": {**body["metadata"], "uid": "u", "resourceVersion": "1"}}

    async def apply_status(self, body, manager):
        await asyncio.sleep(ANSWER_SECONDS)
        self.live[Key("team", body["metadata"]["name"])][SERVICE]["status"] = body["status"]

    async def create(self, body, manager):
        await asyncio.sleep(ANSWER_SECONDS)
        return body

    async def dashboard(self, place, seconds):
        if place.cluster != "healthy-a":
            await asyncio.sleep(seconds)
            raise RayTooSlow(f"no answer from Ray within {seconds:g} s")
        application = self.config["applications"][0]
        return {"applications": {"imagine": {"status": "RUNNING", "deployed_app_config": application}}}


async def latencies(world):
    """Seconds from each edit of the healthy service to the write of its RayService, with edits of silent ones beside."""
    polls = ServePoller(ServeReader(Asks(world.dashboard, world.dashboard), now))
    nodes = NodeReader(world)

    async def probe(namespace, service, seconds):
        await asyncio.sleep(seconds)
        raise RayTooSlow("no answer")

    probes = ProbePoller(probe, now)
    observer = Observer(world, polls, probes, nodes, PreloadReader(world, nodes))
    reconciler = Reconciler(world, Settings(), observer, now, lambda: "token")
    clock = asyncio.get_running_loop().time
    queue = WorkQueue(
        reconciler.reconcile,
        workers=8,
        retry_base_seconds=0.5,
        retry_cap_seconds=60,
        per_second=100,
        clock=clock,
    )
    tasks = [
        asyncio.create_task(each)
        for each in (queue.run(), polls.run(queue.add, queue.add_routine), probes.run(queue.add))
    ]
    for key in world.live:
        queue.add_routine(key)
    silent = [key for key in world.live if key != HEALTHY]
    await asyncio.sleep(5)
    asked = {}
    for number in range(EDITS):
        for key in (HEALTHY, silent[2 * number % SILENT], silent[(2 * number + 1) % SILENT]):
            world.edit(key, 101 + number)
            queue.add(key)
        asked[101 + number] = now()
        await asyncio.sleep(0.5)
    assert not any(each.done() for each in tasks)
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    found = {}
    for key, config, at in world.written:
        for steps in asked:
            if key == HEALTHY and f"max_steps: {steps}" in config:
                found.setdefault(steps, at)
    return [(found[steps] - at).total_seconds() for steps, at in asked.items()]


@pytest.fixture
def world(resource):
    return World(resource, [*(Key("team", f"silent-{number}") for number in range(SILENT)), HEALTHY])


def test_an_edit_reaches_the_ray_service_as_if_the_silent_ones_were_not_there(world, in_virtual_time):
    found = in_virtual_time(latencies(world))
    assert statistics.quantiles(found, n=20)[18] <= 0.3
    assert max(found) <= 0.3
    told = {
        each["type"]: each["message"]
        for each in world.live[Key("team", "silent-1")][SERVICE]["status"]["conditions"]
    }
    assert "Ray's dashboard has not answered since: no answer from Ray within 5 s" in told["Ready"]
