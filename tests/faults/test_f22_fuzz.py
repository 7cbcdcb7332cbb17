# SPDX-License-Identifier: Apache-2.0
"""F22: random lifecycles of services end as if only the last spec had been applied.

The schema refuses large and odd specs.
"""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from sd_operator.api.crd import custom_resource_definition
from sd_testkit.fault_proxy import Match
from sd_testkit.proving import oracles, state
from sd_testkit.proving.fuzzing import Tally, cases, run
from sd_testkit.proving.lane import SPEC, fresh_name

VERSION = custom_resource_definition()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]
AT_ONCE = 125


def drawn(count, number):
    """The same cases each time for a number."""
    found = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(SCHEMA))
    def draw(case):
        found.append(case)

    draw()
    return found[:count]


@pytest.fixture
def without_kuberay(control_plane):
    """Thousands of clusters would need another machine; the operator writes the same RayServices."""
    control_plane.processes.stop("kuberay")
    yield
    control_plane.processes.restart("kuberay")


async def play(open_lane, figure, count, number=0):
    # Events tell what happens here; passes over everything each second would be most of the work.
    lane = await open_lane(SDSERVICE_FULL_RESYNC_SECONDS="20")
    tally, lives = Tally(), drawn(count, number)
    for start in range(0, len(lives), AT_ONCE):
        await run(lane, lives[start : start + AT_ONCE], tally)
        assert not tally.broken, "\n".join(tally.broken)
    broken = oracles.few_restarts(lane.kubelet.codes, 0)
    mark = lane.proxy.journal.mark()
    await asyncio.sleep(10)
    broken += oracles.not_busy(lane.proxy.journal.since(mark), 10, lane.most_requests(2 * AT_ONCE))
    assert not broken, "\n".join(broken)
    assert "Traceback" not in lane.operator.log()
    assert tally.edits, "no child was there to be edited"
    assert tally.refused <= tally.cases / 2
    figure(
        "F22",
        f"{tally.cases} random lives, {tally.refused} of them refused throughout, {tally.edits} hand edits of children",
    )


@pytest.mark.quick
async def test_f22_random_lives(without_kuberay, open_lane, figure):
    await play(open_lane, figure, 24)


@pytest.mark.parametrize("number", range(8))
async def test_f22_two_thousand_random_lives(without_kuberay, open_lane, figure, number):
    await play(open_lane, figure, 250, number)


def deep(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    return value


VALUES = [f"{number:063d}" for number in range(64)]
TERM = {"matchExpressions": [{"key": "zone", "operator": "In", "values": VALUES}] * 16}
NODES = {
    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM] * 2}}
}
ODD = {
    "a megabyte of text": ({"serviceAccountName": "x" * 2**20}, False),
    "a megabyte of annotations": ({"podAnnotations": {f"a/{n}": "x" * 1000 for n in range(1000)}}, False),
    "unicode": ({"podAnnotations": {"note": "Zoë \u202e \U0001f600"}}, True),
    "deep": ({"head": {"affinity": {"podAffinity": deep(100)}}}, False),
    # Each group's term is there twice in the RayService, once for each label that tells the capacity type.
    "a RayService of two megabytes": (
        {"workerGroups": [{"name": f"g{n}", "affinity": NODES, "capacityType": "spot"} for n in range(8)]},
        True,
    ),
}


@pytest.mark.parametrize("what", ODD)
async def test_f22_odd_specs(lane, control_plane, figure, what):
    """Refused by the API server, or told by the operator; never a loop, and never in the way of others."""
    more, admitted = ODD[what]
    name = fresh_name()
    body = json.dumps(lane.resource(name) | {"spec": {**SPEC, **more}})
    done = await asyncio.to_thread(control_plane.kubectl, "create", "-f", "-", stdin=body, check=False)
    accepted = done.returncode == 0
    assert accepted == admitted, done.stderr[:500]
    if accepted:

        async def told():
            live = await lane.service(name)
            return not oracles.told_truly(live, {})

        await lane.until(told, within=60)
    other = fresh_name()
    await lane.apply(other, SPEC)

    async def serves():
        return state.conditions(await lane.service(other)).get("Ready", ("", ""))[0] == "True"

    await lane.until(serves)
    mine = Match.of(where=lambda request: name in request.path)
    mark = lane.proxy.journal.mark()
    await asyncio.sleep(6)
    asked = [each for each in lane.proxy.journal.since(mark) if mine(each.request)]
    assert len(asked) <= 6 / 2 * 20
    assert not oracles.few_restarts(lane.kubelet.codes, 0)
    figure("F22", f"{what}: {'admitted and told' if accepted else 'refused by the API server'}")
