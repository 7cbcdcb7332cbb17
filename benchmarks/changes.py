# SPDX-License-Identifier: Apache-2.0
"""Measure how long a service does not answer, and which requests it loses, while a field of its spec changes.

    .venv/bin/python benchmarks/changes.py [--field NAME ...] [--per-second N]

The benchmark uses real Ray on this machine. It prints one row per field of docs/changes.md that reaches Ray in place
(classes `live` and `replicas restart`), with the edits of tests/data/changes.yaml. Three more edits follow: to zero and
back, by which the ingress moves, and to a model that does not exist. The cluster has a head without CPUs and the workers
that the operator gives the service: enough for `replicas.max`, and the additional one of `upgrade.surgeWorkers`. Requests
for small pictures arrive at random times, at a given rate, each on its own connection.

`gap` is the longest time in seconds in which no new request was answered, minus the longest pause between requests in
that time. `refused` requests received an error that asks the client to retry. `lost` requests received neither a picture
nor such an error.
"""

import argparse
import asyncio
import copy
import itertools
import re
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sd_operator.api import Resource, parse
from sd_operator.api.capacity import most_replicas
from sd_operator.builders.ray_service import ray_service
from sd_operator.builders.serve_config import serve_config
from sd_operator.naming import APPLICATION, MODEL_DEPLOYMENT
from sd_operator.settings import Settings
from sd_testkit.cluster.ray_host import RayHost, RayNode
from sd_testkit.generators.merging import merged
from sd_testkit.generators.open_load import Answer, Load, shares

ROOT = Path(__file__).parent.parent
SHAPES = ROOT / "serve_runtime/src/sd_runtime/models/shapes"
WAIT_SECONDS = 300.0
QUIET_SECONDS = 3.0
"""Seconds of load before and after the change."""
WORKERS = 3
"""The workers on this machine: two replicas and the additional one."""
BASE = {"gpusPerReplica": 0, "replicas": {"min": 1, "max": 2}, "limits": {"timeoutSeconds": 60}}

Json = dict[str, Any]


@dataclass(frozen=True)
class Edit:
    """A change of one field.

    Attributes:
        name: the name of the row.
        before: the spec before the change; `after`: the spec after it.
        fails: whether the change cannot be applied, so that the former version continues to run.
    """

    name: str
    before: Json
    after: Json
    fails: bool = False


def edits(models: Path) -> Iterator[Edit]:
    """Yield every edit that reaches Ray in place.

    Args:
        models: a folder with two copies of the bundled model.
    """
    here = {"preset": None, "uri": f"file://{models}/a"}
    there = {"preset": None, "uri": f"file://{models}/b"}
    known = yaml.safe_load((ROOT / "tests/data/changes.yaml").read_text())
    # Samples of the data file that need resources which this machine does not have.
    known |= {
        "model.preset": [{"model": here}, {"model": {"preset": "shapes", "uri": None}}],
        "model.uri": [{"model": here}, {"model": there}],
        "model.scheduler": [{}, {"model": {"scheduler": "DDIM"}}],
        "optimizations": [{}, {"optimizations": {"channelsLast": False}}],
        "replicas": [{}, {"replicas": {"min": 2, "max": 2}}],
        "batching": [{}, {"batching": {"maxBatchSize": 4}}],
        "limits.maxPromptCharacters": [{}, {"limits": {"maxPromptCharacters": 99}}],
        "upgrade.surgeWorkers": [{}, {"upgrade": {"surgeWorkers": 2}}],
        "autoscaling.targetOngoingRequests": [{}, {"autoscaling": {"targetOngoingRequests": 40}}],
    }
    for name in _rows():
        if name not in _NOT_HERE:
            before, after = known[name]
            before = merged(BASE, before)
            yield Edit(name, before, merged(before, after))
    zero = merged(BASE, {"replicas": {"min": 0}})
    yield Edit("replicas.min 0 to 1, a replica awake", zero, BASE)
    yield Edit("replicas.min 1 to 0, a replica awake", BASE, zero)
    missing = merged(BASE, {"model": {"preset": None, "uri": f"file://{models}/none"}})
    yield Edit("a model that does not exist", BASE, missing, fails=True)


_NOT_HERE = {
    "model.revision",  # of a hub, which this machine does not reach; as model.uri to Ray
    "model.variant",  # the bundled model has none; likewise
    "model.loras",  # likewise
    "model.dtype",  # a CPU computes float32
    "model.quantization",  # and cannot do it
    "workerGroups[].minReplicas",  # more workers than this machine holds; to Ray, as upgrade.surgeWorkers
    "workerGroups[].maxReplicas",
}


def _rows() -> list[str]:
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", (ROOT / "docs/changes.md").read_text(), re.MULTILINE)
    return [
        name
        for cell, kind in rows
        if "live" in kind or "restart" in kind
        for name in re.findall(r"`([^`]+)`", cell)
    ]


class Service:
    """The service that is edited.

    Args:
        host: where it runs.
    """

    def __init__(self, host: RayHost) -> None:
        self.host = host
        self.nodes: list[RayNode] = [host.head()]

    async def until(self, condition: Any) -> None:
        """Wait until a condition is true."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - Ray is asked
                await asyncio.sleep(0.2)

    async def start(self) -> None:
        """Start the head and its workers."""
        await self.until(self.host.answers)
        for _ in range(WORKERS):
            before = self.host.nodes()
            self.nodes.append(self.host.worker())
            await self.until(lambda before=before: self.host.nodes() - before)

    def stop(self) -> None:
        """End it."""
        for each in reversed(self.nodes):
            each.stop()

    async def apply(self, resource: Resource, *, fails: bool = False) -> None:
        """PUT the Serve config of a spec, and wait until the application runs or has failed."""
        config = serve_config(resource.spec)
        await self.until(lambda: self.host.apply(config))
        await asyncio.sleep(1)  # until Serve has started to apply it
        wanted = {"DEPLOY_FAILED"} if fails else {"RUNNING"}
        await self.until(lambda: self._state() in wanted)
        if not fails:
            await self.until(lambda: self._is_settled(resource))

    def _state(self) -> str:
        return str(self.host.application(APPLICATION).get("status", ""))

    def _is_settled(self, resource: Resource) -> bool:
        found = (self.host.application(APPLICATION).get("deployments") or {}).get(MODEL_DEPLOYMENT) or {}
        states = [each["state"] for each in found.get("replicas", [])]
        low = resource.spec.replicas.min
        return found.get("status") == "HEALTHY" and set(states) <= {"RUNNING"} and len(states) >= low


def resource(spec: Json) -> Resource:
    """Return the quick start with another spec."""
    body = yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text())
    if "uri" in spec.get("model", {}):
        del body["spec"]["model"]["preset"]
    found = parse(merged(body, {"spec": copy.deepcopy(spec)}))
    if most_replicas(found.spec) > WORKERS and found.spec.replicas.max > WORKERS - 1:
        raise SystemExit(f"{WORKERS} workers do not hold {found.spec.replicas.max} replicas and one more")
    return found


async def measured(service: Service, edit: Edit, per_second: float) -> list[Answer]:
    """Run the load around one edit; return its answers."""
    await service.apply(resource(edit.before))
    load = Load(f"{service.host.url}/imagine", {"prompt": "a red circle", "steps": "2"}, per_second)
    async with load.running() as traffic:
        await asyncio.sleep(QUIET_SECONDS)
        await service.apply(resource(edit.after), fails=edit.fails)
        await asyncio.sleep(QUIET_SECONDS)
    return traffic.answers


def gap(answers: list[Answer]) -> float:
    """Return the longest time without an answer, minus the longest pause between requests in it, in seconds."""
    ends = sorted(each.sent + each.seconds for each in answers if each.outcome == "answered")
    starts = sorted(each.sent for each in answers)
    usual = sorted(each.seconds for each in answers if each.outcome == "answered")[len(ends) // 2]
    longest = 0.0
    for one, other in itertools.pairwise(ends):
        waiting = next((at for at in starts if at > one - usual), other)
        longest = max(longest, other - max(one, waiting) - usual)
    return longest


@asynccontextmanager
async def running() -> AsyncGenerator[Service]:
    """Run Ray's head and workers."""
    service = Service(RayHost(ray_service(resource(BASE), Settings())))
    try:
        await service.start()
        yield service
    finally:
        await asyncio.to_thread(service.stop)


async def main(names: list[str], per_second: float) -> None:
    """Print the table."""
    models = Path(tempfile.mkdtemp(prefix="sds-models-"))
    try:
        for name in ("a", "b"):
            shutil.copytree(SHAPES, models / name)
        print(
            "| edit | requests | gap, s | lost | refused | slowest, s |\n|---|---|---|---|---|---|",
            flush=True,
        )
        async with running() as service:
            for edit in edits(models):
                if names and edit.name not in names:
                    continue
                began = time.monotonic()
                answers = await measured(service, edit, per_second)
                counts = shares(answers)
                lost = counts.get("lost", 0) + counts.get("refused", 0)
                slowest = max(each.seconds for each in answers)
                print(
                    f"| {edit.name} | {len(answers)} | {gap(answers):.1f} | {lost} | {counts.get('retryable', 0)} |"
                    f" {slowest:.1f} | <!-- {time.monotonic() - began:.0f} s -->",
                    flush=True,
                )
                for each in answers:
                    if each.outcome != "answered":
                        print(f"    {each.outcome} after {each.seconds:.1f} s: {each.status} {each.words}")
    finally:
        shutil.rmtree(models)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--field", action="append", help="this row only")
    parser.add_argument("--per-second", type=float, default=4.0, help="requests on average")
    given = parser.parse_args()
    asyncio.run(main(given.field or [], given.per_second))
