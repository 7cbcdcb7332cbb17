# SPDX-License-Identifier: Apache-2.0
"""F6 to F9 and F11: watches that disconnect, lose history, fail, go silent, or repeat, reorder and omit events."""

import asyncio

import pytest

from sd_testkit.fault_proxy import Lines, Match
from sd_testkit.proving import oracles
from sd_testkit.proving.lane import RESYNC_SECONDS, SPEC, fresh_name

WATCHES = Match.of("watch")
KINDS = 6
NOT_FOUND = 404
STEPS = {"limits": {"maxSteps": 33}}


async def all_watch(lane):
    """Wait until every kind is watched; an earlier test may have ended that."""

    async def watched():
        return len({each.request.resource for each in lane.proxy.streams(WATCHES)}) >= KINDS

    await lane.until(watched)


async def another(lane, wanted, restarts=0):
    """Another service comes up as the first one did; return the seconds that took."""
    ends, name = len(lane.kubelet.codes), fresh_name()
    await lane.apply(name, SPEC)
    seconds = await lane.reaches(name, wanted)
    broken = [*await lane.stays(name, wanted), *oracles.few_restarts(lane.kubelet.codes[ends:], restarts)]
    once = dict.fromkeys(lane.witness.seen(lane.namespace, name), 1)
    broken += oracles.no_more_made(once, lane.witness.seen(lane.namespace, name))
    await lane.delete(name)
    assert not broken, "\n".join(broken)
    return seconds


@pytest.mark.parametrize(
    "how", ["reset", "eof", "mid-line", pytest.param("mid-line eof", marks=pytest.mark.quick)]
)
async def test_f06_watch_that_breaks_off_loses_nothing(served, figure, how):
    lane, _, wanted = served
    await all_watch(lane)
    assert await lane.proxy.end(WATCHES, how) >= KINDS
    figure(
        "F6", f"every watch ends by {how}: {await another(lane, wanted):.1f} s to the end of a new service"
    )


async def test_f06_watches_that_break_off_all_the_time(served, figure):
    lane, _, wanted = served

    async def break_off():
        while True:
            await asyncio.sleep(0.5)
            await lane.proxy.end(WATCHES, "reset")

    breaking = asyncio.create_task(break_off())
    try:
        seconds = await another(lane, wanted)
    finally:
        breaking.cancel()
    figure("F6", f"every watch is reset twice a second: {seconds:.1f} s to the end of a new service")


async def test_f07_service_deleted_in_a_gap_is_forgotten(served, figure):
    """A list that follows a 410 does not tell what went meanwhile: the resync has to miss it."""
    lane, _, wanted = served
    name, _ = await lane.serve()
    mark = lane.proxy.journal.mark()
    with lane.proxy.rule(WATCHES, Lines(lambda _: [])):
        await lane.delete(name)
        await lane.until(lambda: gone(lane, name))
        await lane.proxy.say_error(WATCHES, 410)

        async def missed():
            return any(
                each.request.name == name
                and each.request.resource == "stablediffusionservices"
                and each.status == NOT_FOUND
                for each in lane.proxy.journal.since(mark)
            )

        missing = await lane.until(missed, within=10 * RESYNC_SECONDS + 10)
    seconds = await another(lane, wanted)
    figure(
        "F7",
        f"410 after a deletion nobody heard of: missed after {missing:.1f} s, {seconds:.1f} s to the end of a new service",
    )


async def gone(lane, name):
    return await lane.service(name) is None and not [
        each
        for each in await lane.children()
        if each["metadata"].get("labels", {}).get("sdservice.dev/name") == name
    ]


async def test_f07_compacted_history(served, control_plane, figure):
    lane, _, wanted = served
    await asyncio.to_thread(control_plane.compact)
    await lane.proxy.end(WATCHES, "reset")
    seconds = await another(lane, wanted)
    figure("F7", f"etcd compacted, every watch reset: {seconds:.1f} s to the end of a new service")


@pytest.mark.parametrize("code", [410, 429, pytest.param(500, marks=pytest.mark.quick), 504])
async def test_f08_error_within_a_watch(served, figure, code):
    lane, _, wanted = served
    await all_watch(lane)
    assert await lane.proxy.say_error(WATCHES, code) >= KINDS
    restarts = 0 if code == 410 else 1
    seconds = await another(lane, wanted, restarts)
    ends = f"ended {len(lane.kubelet.codes)} times"
    figure("F8", f"ERROR {code} in every watch: {ends}, {seconds:.1f} s to the end of a new service")


async def test_f09_silent_watches(served, figure):
    lane, name, wanted = served
    with lane.proxy.rule(WATCHES, Lines(lambda _: [])):
        await lane.apply(name, {**SPEC, **STEPS})

        async def followed():
            found = await lane.server.get("RayService", lane.namespace, name)
            return "max_steps: 33" in found["spec"]["serveConfigV2"]

        seconds = await lane.until(followed, within=2 * RESYNC_SECONDS + 5)
    await lane.apply(name, SPEC)
    await lane.reaches(name, wanted)
    figure(
        "F9",
        f"watches say nothing: a change arrives after {seconds:.1f} s, resync every {RESYNC_SECONDS:.0f} s",
    )


def reordered():
    """Each event after the next one."""
    kept = []

    def change(event):
        kept.append(event)
        return [kept.pop(1), kept.pop(0)] if len(kept) == 2 else []

    return change


def decimated():
    """Every second event only."""
    number = 0

    def change(event):
        nonlocal number
        number += 1
        return [event] if number % 2 else []

    return change


@pytest.mark.parametrize(
    ("what", "change"),
    [("twice", lambda: lambda event: [event, event]), ("in wrong order", reordered), ("in part", decimated)],
    ids=["twice", "reordered", "dropped"],
)
async def test_f11_events_said_otherwise_than_once_and_in_order(served, figure, what, change):
    lane, _, wanted = served
    with lane.proxy.rule(WATCHES, Lines(change())):
        seconds = await another(lane, wanted)
    figure("F11", f"events said {what}: {seconds:.1f} s to the end of a new service")
