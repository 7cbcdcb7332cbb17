# SPDX-License-Identifier: Apache-2.0
"""What becomes of requests while parts of the service fail or are replaced: real Ray on this machine.

    .venv/bin/python benchmarks/under_fire.py [--scenario NAME ...] [--per-second N]

A head without CPUs and workers of one replica each, as KubeRay starts them; every node has a Serve proxy, and all
share one port, as behind a Service. An open-loop load asks the bundled model for small pictures, one scenario after
another. Printed is how many requests got a picture; an error that says to come back and has a request id; no
connection; and, `lost`, anything else. `slowest` is in seconds, of those that got no picture in brackets.
"""

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from sd_operator.api import Resource, parse
from sd_operator.builders.ray_service import ray_service
from sd_operator.builders.serve_config import serve_config
from sd_operator.naming import APPLICATION
from sd_operator.settings import Settings
from sd_testkit.cluster.ray_host import RayHost, RayNode
from sd_testkit.generators.open_load import Answer, Load, shares

EXAMPLE = Path(__file__).parent.parent / "examples/quickstart.yaml"
OUTCOMES = ("answered", "retryable", "refused", "lost")
LIMIT_SECONDS = 60
STEPS = 40
BUSY = 3
"""Requests that are under way when it happens."""
WAIT_SECONDS = 400.0
QUIET_SECONDS = 8.0
"""Load before and after what happens."""
HEAD_AWAY_SECONDS = 40.0
"""How long a cluster takes to have another head's pod run, at least."""
KEPT = "head killed, its state on a volume"
STATE_VARIABLES = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
"""What KubeRay gives the pods of a cluster with `gcsFaultToleranceOptions.backend: rocksdb`, the folder apart."""


class Fire:
    """The service that is shot at.

    Args:
        host: where it runs.
    """

    def __init__(self, host: RayHost) -> None:
        self.host = host
        self.heads = [host.head()]  # those that failed too: their folder is that of the workers
        self.workers: list[RayNode] = []

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - Ray is asked
                await asyncio.sleep(0.5)

    async def settle(self, *, workers: int, replicas: int, side: int = 64) -> None:
        """So many workers and replicas, which draw a picture of this size before they are ready."""
        for each in self.workers[workers:]:
            await asyncio.to_thread(each.stop)
        del self.workers[workers:]
        while len(self.workers) < workers:
            await self.add_worker()
        await self.until(lambda: self.host.apply(config(replicas, side)))
        await self.until(lambda: len(self.replicas()) == replicas)

    async def add_worker(self) -> None:
        """One more, and again where Ray gives up on it, as a kubelet does."""
        before = self.host.nodes()
        self.workers.append(self.host.worker())

        def is_up() -> bool:
            if self.workers[-1].gone():
                self.workers[-1].stop()
                self.workers[-1] = self.host.worker()
            return bool(self.host.nodes() - before)

        await self.until(is_up)

    def replicas(self, deployment: str = "model") -> dict[str, int]:
        """Process ids of the replicas by their id, if all of them run; else none."""
        told = self.host.application(APPLICATION)
        if told.get("status") != "RUNNING":
            return {}
        found = told["deployments"][deployment]["replicas"]
        if {each["state"] for each in found} != {"RUNNING"}:
            return {}
        return {each["replica_id"]: each["pid"] for each in found}

    async def until_replaced(self, before: dict[str, int], replicas: int) -> None:
        """Wait for so many replicas, all of them others."""
        await self.until(lambda: len(self.replicas()) == replicas and not self.replicas().keys() & before)

    def stop(self) -> None:
        """End it."""
        for each in (*self.workers, *self.heads):
            each.stop()


def resource(replicas: int, side: int) -> Resource:
    """The quick start on CPUs; another side is another model to Serve."""
    body = yaml.safe_load(EXAMPLE.read_text())
    body["spec"] |= {
        "gpusPerReplica": 0,
        "limits": {"timeoutSeconds": LIMIT_SECONDS},
        "replicas": {"min": replicas, "max": replicas},
        "workerGroups": [{"name": "cpu", "maxReplicas": 3}],
        "warmup": {"shapes": [{"width": side, "height": side}]},
    }
    return parse(body)


def config(replicas: int, side: int) -> dict[str, Any]:
    """Its Serve config."""
    return serve_config(resource(replicas, side).spec)


async def replica_killed(fire: Fire) -> None:
    """One of two."""
    before = fire.replicas()
    os.kill(next(iter(before.values())), signal.SIGKILL)
    await fire.until(lambda: len(fire.replicas()) == 2 and fire.replicas() != before)  # noqa: PLR2004


async def only_replica_killed(fire: Fire) -> None:
    """One of one."""
    before = fire.replicas()
    os.kill(next(iter(before.values())), signal.SIGKILL)
    await fire.until_replaced(before, 1)


async def ingress_killed(fire: Fire) -> None:
    """The one that all requests pass."""
    before = fire.replicas("ingress")
    os.kill(next(iter(before.values())), signal.SIGKILL)
    await fire.until(lambda: fire.replicas("ingress").keys() - before)


async def worker_killed(fire: Fire) -> None:
    """A machine with one of two replicas fails; another one comes."""
    before = fire.replicas()
    await asyncio.to_thread(fire.workers.pop(0).stop)
    await fire.add_worker()
    await fire.until(lambda: len(fire.replicas()) == 2 and fire.replicas() != before)  # noqa: PLR2004


async def worker_silent(fire: Fire) -> None:
    """The same, but connections to it do not end: nobody is told until Ray misses it."""
    before = fire.replicas()
    silent = fire.workers.pop(0)
    silent.freeze()
    await fire.add_worker()
    await fire.until(lambda: len(fire.replicas()) == 2 and fire.replicas() != before)  # noqa: PLR2004
    await asyncio.to_thread(silent.stop)


async def head_killed(fire: Fire) -> None:
    """Its machine fails; another head comes, and workers that ended with the old one, and KubeRay applies again."""
    before = fire.replicas()
    await asyncio.to_thread(fire.heads[-1].kill)
    fire.heads.append(fire.host.head())
    await fire.until(fire.host.answers)
    await fire.until(lambda: fire.host.apply(config(2, 64)))
    while any(gone := [each.gone() for each in fire.workers]) or len(fire.host.nodes()) <= len(gone):
        for place, is_gone in enumerate(gone):
            if is_gone:
                fire.workers[place].stop()
                fire.workers[place] = fire.host.worker()
        await asyncio.sleep(2)
    await fire.until_replaced(before, 2)


async def head_comes_back(fire: Fire) -> None:
    """Its machine fails; another head comes with the state of the former one, and KubeRay applies again."""
    before = fire.replicas()
    await asyncio.to_thread(fire.heads[-1].kill)
    await asyncio.sleep(HEAD_AWAY_SECONDS)
    fire.heads.append(fire.host.head())

    def answers() -> bool:
        if fire.heads[-1].gone():  # it gives up where its raylet takes longer than half a minute to register
            fire.heads.append(fire.host.head())
        return fire.host.answers()

    await fire.until(answers)
    await fire.until(lambda: fire.host.apply(config(2, 64)))
    await fire.until(lambda: len(fire.replicas()) == 2)  # noqa: PLR2004
    kept = len(fire.replicas().keys() & before)
    print(
        f"    {kept} of 2 replicas are those of before; workers ended: {[each.gone() for each in fire.workers]}"
    )


async def rolling_update(fire: Fire) -> None:
    """Two replicas with room for a third."""
    before = fire.replicas()
    await fire.until(lambda: fire.host.apply(config(2, 72)))
    await fire.until_replaced(before, 2)


async def update_of_one(fire: Fire) -> None:
    """One replica with room for another: Serve starts the new one first."""
    before = fire.replicas()
    await fire.until(lambda: fire.host.apply(config(1, 80)))
    await fire.until_replaced(before, 1)


async def scale_down(fire: Fire) -> None:
    """From three to one."""
    await fire.until(lambda: fire.host.apply(config(1, 64)))
    await fire.until(lambda: len(fire.replicas()) == 1)


Scenario = Callable[[Fire], Awaitable[None]]
SCENARIOS: dict[str, tuple[dict[str, int], Scenario]] = {
    "replica killed": ({"workers": 2, "replicas": 2}, replica_killed),
    "only replica killed": ({"workers": 2, "replicas": 1}, only_replica_killed),
    "ingress killed": ({"workers": 2, "replicas": 2}, ingress_killed),
    "worker killed": ({"workers": 2, "replicas": 2}, worker_killed),
    "worker silent": ({"workers": 2, "replicas": 2}, worker_silent),
    "rolling update": ({"workers": 3, "replicas": 2}, rolling_update),
    "update of one replica": ({"workers": 3, "replicas": 1}, update_of_one),
    "scale down": ({"workers": 3, "replicas": 3}, scale_down),
    "head killed": ({"workers": 3, "replicas": 2}, head_killed),
    KEPT: ({"workers": 3, "replicas": 2}, head_comes_back),
}


async def play(fire: Fire, name: str, per_second: float) -> list[Answer]:
    """What became of the load of one scenario."""
    places, happens = SCENARIOS[name]
    await fire.settle(**places)
    load = Load(f"{fire.host.url}/imagine", {"prompt": "a red circle", "steps": str(STEPS)}, per_second)
    async with load.running() as traffic:
        await asyncio.sleep(QUIET_SECONDS)
        while traffic.under_way < BUSY:  # noqa: ASYNC110 - it comes by chance
            await asyncio.sleep(0.02)
        await happens(fire)
        await asyncio.sleep(QUIET_SECONDS)
    return traffic.answers


@asynccontextmanager
async def running(*, keeps_state: bool) -> AsyncGenerator[Fire]:
    """Ray's head, and what is started beside it."""
    with tempfile.TemporaryDirectory() as folder:
        variables = STATE_VARIABLES | {"RAY_gcs_storage_path": folder} if keeps_state else {}
        fire = Fire(RayHost(ray_service(resource(1, 64), Settings()), variables))
        try:
            await fire.until(fire.host.answers)
            yield fire
        finally:
            await asyncio.to_thread(fire.stop)


def row(name: str, answers: list[Answer]) -> str:
    """One line of the table."""
    counts = shares(answers)
    slowest = max((each.seconds for each in answers if each.outcome == "answered"), default=0.0)
    failed = max((each.seconds for each in answers if each.outcome != "answered"), default=0.0)
    numbers = " | ".join(str(counts.get(each, 0)) for each in OUTCOMES)
    return f"| {name} | {len(answers)} | {numbers} | {slowest:.1f} ({failed:.1f}) |"


async def main(names: list[str], per_second: float) -> None:
    """Print the table."""
    print("| scenario | requests |", " | ".join(OUTCOMES), "| slowest |", flush=True)
    for keeps_state, chosen in groupby(sorted(names, key=KEPT.__eq__), key=KEPT.__eq__):
        await show([*chosen], per_second, keeps_state=keeps_state)


async def show(names: list[str], per_second: float, *, keeps_state: bool) -> None:
    """Rows of scenarios that one cluster goes through."""
    async with running(keeps_state=keeps_state) as fire:
        for name in names:
            began = time.monotonic()
            answers = await play(fire, name, per_second)
            print(row(name, answers), flush=True)
            for each in sorted(answers, key=lambda each: each.sent):
                if each.outcome != "answered":
                    at = each.sent - min(other.sent for other in answers)
                    print(
                        f"    {at:.1f} s: {each.outcome} after {each.seconds:.1f} s: {each.status} {each.words}"
                    )
            print(f"    {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", action="append", choices=[*SCENARIOS], help="this one only")
    parser.add_argument("--per-second", type=float, default=2.0, help="requests on average")
    given = parser.parse_args()
    asyncio.run(main(given.scenario or [*SCENARIOS], given.per_second))
