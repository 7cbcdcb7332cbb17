# SPDX-License-Identifier: Apache-2.0
"""Measure the outcome of requests while parts of the service fail or are replaced, with real Ray on this machine.

    .venv/bin/python benchmarks/under_fire.py [--scenario NAME ...] [--per-second N]

The cluster has a head without CPUs and workers of one replica each, as KubeRay starts them. Every node has a Serve proxy,
and all proxies share one port, as behind a Service. An open-loop load requests small pictures of the bundled model, one
scenario after another.

The script counts the requests by outcome: a picture; an error that asks the client to retry and has a request id; no
connection; and anything else as `lost`. `slowest` is in seconds; the number in brackets is that of requests that received
no picture.
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
"""The number of running requests at which the failure is triggered."""
WAIT_SECONDS = 400.0
QUIET_SECONDS = 8.0
"""Seconds of load before and after the failure."""
HEAD_AWAY_SECONDS = 40.0
"""The minimum time in which a cluster starts the pod of a new head."""
KEPT = "head killed, its state on a volume"
STATE_VARIABLES = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
"""The settings that KubeRay gives the pods with `gcsFaultToleranceOptions.backend: rocksdb`, except for the folder."""


class Fire:
    """The service under test.

    Args:
        host: where it runs.
    """

    def __init__(self, host: RayHost) -> None:
        self.host = host
        self.heads = [host.head()]  # failed heads stay in the list: the workers use their folder
        self.workers: list[RayNode] = []

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition is true."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - Ray is asked
                await asyncio.sleep(0.5)

    async def settle(self, *, workers: int, replicas: int, side: int = 64) -> None:
        """Start workers and replicas; each replica generates a picture of this size before it is ready."""
        for each in self.workers[workers:]:
            await asyncio.to_thread(each.stop)
        del self.workers[workers:]
        while len(self.workers) < workers:
            await self.add_worker()
        await self.until(lambda: self.host.apply(config(replicas, side)))
        await self.until(lambda: len(self.replicas()) == replicas)

    async def add_worker(self) -> None:
        """Start one more worker, and restart it where Ray gives up on it, as a kubelet does."""
        before = self.host.nodes()
        self.workers.append(self.host.worker())

        def is_up() -> bool:
            if self.workers[-1].gone():
                self.workers[-1].stop()
                self.workers[-1] = self.host.worker()
            return bool(self.host.nodes() - before)

        await self.until(is_up)

    def replicas(self, deployment: str = "model") -> dict[str, int]:
        """Return the process ids of the replicas by replica id, if all of them run; otherwise nothing."""
        told = self.host.application(APPLICATION)
        if told.get("status") != "RUNNING":
            return {}
        found = told["deployments"][deployment]["replicas"]
        if {each["state"] for each in found} != {"RUNNING"}:
            return {}
        return {each["replica_id"]: each["pid"] for each in found}

    async def until_replaced(self, before: dict[str, int], replicas: int) -> None:
        """Wait for the given number of replicas, all of them new."""
        await self.until(lambda: len(self.replicas()) == replicas and not self.replicas().keys() & before)

    def stop(self) -> None:
        """End it."""
        for each in (*self.workers, *self.heads):
            each.stop()


def resource(replicas: int, side: int) -> Resource:
    """Return the quick start on CPUs; for Serve, another side is another model."""
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
    """Return its Serve config."""
    return serve_config(resource(replicas, side).spec)


async def replica_killed(fire: Fire) -> None:
    """Kill one of two replicas."""
    before = fire.replicas()
    os.kill(next(iter(before.values())), signal.SIGKILL)
    await fire.until(lambda: len(fire.replicas()) == 2 and fire.replicas() != before)  # noqa: PLR2004


async def only_replica_killed(fire: Fire) -> None:
    """Kill the only replica."""
    before = fire.replicas()
    os.kill(next(iter(before.values())), signal.SIGKILL)
    await fire.until_replaced(before, 1)


async def ingress_killed(fire: Fire) -> None:
    """Kill the ingress, through which all requests pass."""
    before = fire.replicas("ingress")
    os.kill(next(iter(before.values())), signal.SIGKILL)
    await fire.until(lambda: fire.replicas("ingress").keys() - before)


async def worker_killed(fire: Fire) -> None:
    """The machine of one of two replicas fails; a new machine replaces it."""
    before = fire.replicas()
    await asyncio.to_thread(fire.workers.pop(0).stop)
    await fire.add_worker()
    await fire.until(lambda: len(fire.replicas()) == 2 and fire.replicas() != before)  # noqa: PLR2004


async def worker_silent(fire: Fire) -> None:
    """The same, but its connections stay open: no process notices it until Ray detects the failure."""
    before = fire.replicas()
    silent = fire.workers.pop(0)
    silent.freeze()
    await fire.add_worker()
    await fire.until(lambda: len(fire.replicas()) == 2 and fire.replicas() != before)  # noqa: PLR2004
    await asyncio.to_thread(silent.stop)


async def head_killed(fire: Fire) -> None:
    """The head's machine fails; a new head starts, ended workers restart, and KubeRay applies the config again."""
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
    """The head's machine fails; a new head starts with the state of the old one, and KubeRay applies the config again."""
    before = fire.replicas()
    await asyncio.to_thread(fire.heads[-1].kill)
    await asyncio.sleep(HEAD_AWAY_SECONDS)
    fire.heads.append(fire.host.head())

    def answers() -> bool:
        if fire.heads[-1].gone():  # a head gives up if its raylet takes longer than half a minute to register
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
    """Update two replicas, with capacity for a third."""
    before = fire.replicas()
    await fire.until(lambda: fire.host.apply(config(2, 72)))
    await fire.until_replaced(before, 2)


async def update_of_one(fire: Fire) -> None:
    """Update one replica, with capacity for another: Serve starts the new one first."""
    before = fire.replicas()
    await fire.until(lambda: fire.host.apply(config(1, 80)))
    await fire.until_replaced(before, 1)


async def scale_down(fire: Fire) -> None:
    """Scale from three replicas to one."""
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
    """Run the load of one scenario; return its answers."""
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
    """Run Ray's head and the workers."""
    with tempfile.TemporaryDirectory() as folder:
        variables = STATE_VARIABLES | {"RAY_gcs_storage_path": folder} if keeps_state else {}
        fire = Fire(RayHost(ray_service(resource(1, 64), Settings()), variables))
        try:
            await fire.until(fire.host.answers)
            yield fire
        finally:
            await asyncio.to_thread(fire.stop)


def row(name: str, answers: list[Answer]) -> str:
    """Return one line of the table."""
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
    """Run the scenarios of one cluster, and print their rows."""
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
