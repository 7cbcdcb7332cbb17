# SPDX-License-Identifier: Apache-2.0
"""F1: the operator is killed at a write, or its reply is lost, for every write of every change of a service."""

import asyncio

import pytest

from sd_testkit.proving.crashes import MODES, Crashes, reference
from sd_testkit.proving.lane import SPEC, fresh_name

FAST_WRITES = 2


async def create(lane, mode, most=None):
    """A service is created, each time another one."""
    crashes, name = Crashes(lane, mode), fresh_name()
    wanted = await reference(lane, name, lambda: lane.apply(name, SPEC))
    await lane.delete(name)
    number = 0
    while most is None or number < most:
        number, name = number + 1, fresh_name()
        met = await crashes.at_write(number, name, lambda name=name: lane.apply(name, SPEC), wanted)
        await lane.delete(name)
        if not met:
            break
    return crashes.findings


async def there_and_back(lane, name, specs):
    """A service with the first spec; the changes to the second and back, and their references."""
    await lane.apply(name, {**SPEC, **specs[0]})
    await lane.settled(name)
    acts = [lambda spec=spec: lane.apply(name, {**SPEC, **spec}) for spec in (specs[1], specs[0])]
    return acts, [await reference(lane, name, act) for act in acts]


async def change(lane, mode, specs):
    """A service is changed back and forth; both ways are tried at every write."""
    crashes, name = Crashes(lane, mode), fresh_name()
    acts, wanted = await there_and_back(lane, name, specs)
    number, done = [0, 0], [False, False]
    while not all(done):
        for way, act in enumerate(acts):
            number[way] += 1
            if done[way]:
                await act()
                await lane.reaches(name, wanted[way].end)
            else:
                done[way] = not await crashes.at_write(number[way], name, act, wanted[way])
    return crashes.findings


async def same_change(lane, mode, specs):
    """A service is changed back and forth, which is the same for the operator: one write is tried each time."""
    crashes, name = Crashes(lane, mode), fresh_name()
    acts, wanted = await there_and_back(lane, name, specs)
    number, way = 1, 0
    while await crashes.at_write(number, name, acts[way], wanted[way]):
        number, way = number + 1, 1 - way
    return crashes.findings


CHANGES = {
    "update": (same_change, {"limits": {"maxSteps": 33}}, {"limits": {"maxSteps": 44}}),
    "upgrade": (same_change, {"image": {"tag": "v1"}}, {"image": {"tag": "v2"}}),
    "suspend and resume": (change, {"suspend": False}, {"suspend": True}),
}


async def in_all_modes(open_lane, run):
    lanes = [await open_lane() for _ in MODES]
    return dict(zip(MODES, await asyncio.gather(*map(run, lanes, MODES)), strict=True))


def judge(found, figure, what):
    for mode, findings in found.items():
        figure("F1", f"{what}, {mode}: {findings.figure()}")
    broken = [each for findings in found.values() for each in findings.broken]
    assert not broken, "\n".join(broken)
    assert all(findings.runs for findings in found.values())


@pytest.mark.quick
async def test_f01_first_writes_of_create(open_lane, figure):
    found = await in_all_modes(open_lane, lambda lane, mode: create(lane, mode, FAST_WRITES))
    judge(found, figure, f"first {FAST_WRITES} writes of create")


async def test_f01_every_write_of_create(open_lane, figure):
    judge(await in_all_modes(open_lane, create), figure, "create")


@pytest.mark.parametrize("what", CHANGES)
async def test_f01_every_write_of_a_change(open_lane, figure, what):
    play, *specs = CHANGES[what]
    judge(await in_all_modes(open_lane, lambda lane, mode: play(lane, mode, specs)), figure, what)
