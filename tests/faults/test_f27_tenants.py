# SPDX-License-Identifier: Apache-2.0
"""F27: pods of some services send every malformed response, beside other services with correct pods."""

import asyncio
import re
import statistics
import time

import pytest

from sd_testkit.generators.hostile import MISBEHAVIOURS
from sd_testkit.proving import oracles, state
from sd_testkit.proving.lane import fresh_name
from sd_testkit.ray.pace import HOSTILE

GOOD, HOSTILE_ONES = 20, 3
EDITS = 60
PER_SECOND = 3
SPEC = {
    "model": {"preset": "shapes"},
    "gpusPerReplica": 0,  # more of them than there are GPUs
    "replicas": {"min": 1, "max": 1},
    "workerGroups": [{"name": "cpu", "resources": {"cpu": "1", "memory": "1Gi"}}],
    "imagePreload": {"mode": "Disabled"},
}
TELLS = re.compile(r"(does not answer|has not answered since|it has not answered since) ?[(:]")


async def is_ready(lane, names):
    """Whether each of them is Ready, and Ray has told so."""
    for name in names:
        live = await lane.service(name)
        found = {each["type"]: each for each in live.get("status", {}).get("conditions", [])}
        if (
            not found
            or found["Ready"]["status"] != "True"
            or "Ray runs" not in found["ConfigApplied"]["message"]
        ):
            return False
    return True


async def latencies(lane, names, others):
    """Seconds from an edit to the write of its RayService, at a steady rate; others are edited meanwhile, unmeasured."""
    asked, mark, began = [], lane.proxy.journal.mark(), time.monotonic()
    for number in range(EDITS):
        await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
        spec = {**SPEC, "limits": {"maxSteps": 100 + number}}
        name = names[number % len(names)]
        asked.append((name, 100 + number, time.monotonic()))
        await asyncio.gather(lane.apply(name, spec), lane.apply(others[number % len(others)], spec))

    def written(name, steps):
        for entry in lane.proxy.journal.since(mark):
            if (entry.request.resource, entry.request.name) == ("rayservices", name):
                found = re.search(rb"max_steps: (\d+)", entry.request.body)
                if found and int(found[1]) >= steps:
                    return entry.at
        return None

    async def all_are():
        return all(written(name, steps) for name, steps, _ in asked)

    await lane.until(all_are)
    return sorted(written(name, steps) - at for name, steps, at in asked)


def p95(found):
    return statistics.quantiles(found, n=20)[18]


@pytest.fixture
async def lane(open_lane):
    """One without a pass over everything each second: what is measured here follows from events and polls."""
    found = await open_lane(SDSERVICE_RESYNC_SECONDS="300", SDSERVICE_FULL_RESYNC_SECONDS="3600")
    found.let_pods_answer()
    return found


@pytest.fixture
async def served(lane):
    """Services that are Ready, by Ray's own word: good ones, and those that are to become hostile."""
    names = [fresh_name() for _ in range(GOOD + HOSTILE_ONES)]
    for name in names:
        await lane.apply(name, SPEC)

    async def ready():
        return await is_ready(lane, names)

    await lane.until(ready, within=240)
    return names[:GOOD], names[GOOD:]


async def test_f27_hostile_pods_cost_the_others_nothing(lane, served, control_plane, figure):
    good, hostile = served
    alone = await latencies(lane, good, hostile)

    for name in hostile:
        arguments = ("annotate", "rayservice", name, "-n", lane.namespace, f"{HOSTILE}=yes")
        await asyncio.to_thread(control_plane.kubectl, *arguments)
    reasons = set()

    async def all_tell():
        """Each hostile one tells what came."""
        found = []
        for name in hostile:
            conditions = (await lane.service(name))["status"]["conditions"]
            messages = [each["message"] for each in conditions if TELLS.search(each["message"])]
            reasons.update(TELLS.split(each)[-1].rstrip(").") for each in messages)
            found.append(messages)
        return all(found)

    await lane.until(all_tell, within=120)
    beside = await latencies(lane, good, hostile)
    await all_tell()

    polls = [each for each in lane.proxy.journal.entries if each.request.resource == "services"]
    figure(
        "F27",
        f"edit to RayService p50 / p95: {statistics.median(alone) * 1000:.0f} / {p95(alone) * 1000:.0f} ms alone,"
        f" {statistics.median(beside) * 1000:.0f} / {p95(beside) * 1000:.0f} ms beside {HOSTILE_ONES} services whose pods"
        f" answer {len(MISBEHAVIOURS)} kinds of nonsense in turn; {len(polls)} polls, no restart",
    )
    assert p95(beside) <= 2 * p95(alone) + 0.3
    assert not oracles.few_restarts(lane.kubelet.codes, 0)
    assert "Traceback" not in lane.operator.log()

    async def good_ones_are():
        return await is_ready(lane, good)

    await lane.until(good_ones_are, within=120)
    assert reasons
    for name in hostile:
        # KubeRay, which is not lied to, and pods that are ready: nothing says that it does not serve.
        assert state.conditions(await lane.service(name))["Ready"][0] == "True"
