# SPDX-License-Identifier: Apache-2.0
"""F10, F12, F14 and F15: children that others change, stale reads, namespaces that are deleted, services that change owners."""

import asyncio
import json

import pytest

from sd_testkit.fault_proxy import Hold, Match, Replay
from sd_testkit.proving import oracles, state
from sd_testkit.proving.crashes import WRITES
from sd_testkit.proving.lane import CALM_SECONDS, RESYNC_SECONDS, SPEC, fresh_name

QUICK = pytest.mark.quick
LABEL = state.NAME_LABEL
STEPS = {"limits": {"maxSteps": 33}}
SHARED = "sdservice.dev/preload"


async def child(lane, kind, name):
    """The child of a kind; of one whose labels are gone, by its name, and of a shared one by its owner."""
    found = [each for each in await lane.children() if each["kind"] == kind]
    if kind == "DaemonSet":
        uid = (await lane.service(name))["metadata"]["uid"]
        return next((each for each in found if uid in state.owners(each)), None)
    return next((each for each in found if each["metadata"]["name"].startswith(name)), None)


async def healed(lane, name, wanted):
    seconds = await lane.reaches(name, wanted)
    broken = [*await lane.stays(name, wanted), *oracles.few_restarts(lane.kubelet.codes, 0)]
    assert not broken, "\n".join(broken)
    return seconds


@pytest.mark.parametrize("kind", ["DaemonSet", pytest.param("RayService", marks=QUICK), "Secret"])
async def test_f12_deleted_child_comes_back(served, figure, kind):
    lane, name, wanted = served
    before = await child(lane, kind, name)
    await lane.server.delete(before)

    async def is_another():
        now = await child(lane, kind, name)
        return now is not None and now["metadata"]["uid"] != before["metadata"]["uid"]

    seconds = await lane.until(is_another)
    await healed(lane, name, wanted)
    figure("F12", f"{kind} deleted: back after {seconds:.1f} s")


def edited(kind, edit):
    """A patch of what a child is found by: labels that are ours, and owners."""
    mark = SHARED if kind == "DaemonSet" else LABEL
    labels = {
        "label": {mark: None},
        "other label": {mark: "someone", "app.kubernetes.io/managed-by": None},
        "label and owner": {mark: None},
    }
    owners = {"ownerReferences": []} if "owner" in edit else {}
    return {"metadata": {**({"labels": labels[edit]} if edit in labels else {}), **owners}}


@pytest.mark.parametrize("kind", ["RayService", "DaemonSet"])
@pytest.mark.parametrize(
    "edit", ["label", "other label", "owner", pytest.param("label and owner", marks=QUICK)]
)
async def test_f12_edited_child_is_mended(served, figure, kind, edit):
    lane, name, wanted = served
    live = await child(lane, kind, name)
    await lane.server.merge(live, edited(kind, edit))
    seconds = await lane.reaches(name, wanted)
    after = await child(lane, kind, name)
    assert after["metadata"]["uid"] == live["metadata"]["uid"], "it was replaced"
    broken = await lane.stays(name, wanted)
    assert not broken, "\n".join(broken)
    figure("F12", f"{edit} of the {kind} changed: mended after {seconds:.1f} s")


@pytest.mark.parametrize("kind", ["RayService", "Secret"])
async def test_f12_name_that_is_taken(served, figure, kind):
    """Made by hand, without owner or labels, before the service."""
    lane, other, wanted = served
    name = fresh_name()
    mine = await child(lane, kind, other)
    theirs = json.loads(json.dumps(mine).replace(other, name))
    theirs["metadata"] = {"name": theirs["metadata"]["name"], "namespace": lane.namespace}
    theirs.pop("status", None)
    await lane.server.create(theirs)
    version = (await child(lane, kind, name))["metadata"].get("generation")
    await lane.apply(name, SPEC)

    async def is_told():
        return state.conditions(await lane.service(name)).get("Accepted") == ("False", "NameConflict")

    seconds = await lane.until(is_told)
    live = await child(lane, kind, name)
    assert not live["metadata"].get("ownerReferences")
    assert live["metadata"].get("generation") == version
    await lane.server.delete(live)
    await healed(lane, name, wanted)
    figure("F12", f"{kind} of that name is someone else's: told after {seconds:.1f} s, left alone")


async def answers_of_now(lane):
    """What an operator that starts is told, as the proxy has it; none runs afterwards."""
    await lane.kill()
    mark = lane.proxy.journal.mark()
    with lane.proxy.recording() as answers:
        lane.start()

        async def has_looked():
            return any(each.request.resource == "pods" for each in lane.proxy.journal.since(mark))

        await lane.until(has_looked)
        await asyncio.sleep(3 * RESYNC_SECONDS)
    await lane.kill()
    return answers


async def start_among(lane, rule):
    """Start the operator, and let it go on for a while after the first old answer."""
    lane.start()

    async def is_told():
        return rule.hits

    await lane.until(is_told)
    await asyncio.sleep(3 * RESYNC_SECONDS)


async def test_f10_reads_of_yesterday(served, figure):
    """An API server that lags: all reads are answered with old state for a while; writes are real."""
    lane, name, _ = served
    yesterday = await answers_of_now(lane)
    lane.start()
    await lane.apply(name, {**SPEC, **STEPS})
    newest = await lane.settled(name)
    before = lane.witness.seen(lane.namespace, name)
    reads = Match.of("get list", "stablediffusionservices rayservices daemonsets deployments secrets pods")
    with lane.proxy.rule(reads, Replay(yesterday)) as rule:
        await lane.kill()
        await start_among(lane, rule)
    seconds = await healed(lane, name, newest)
    assert lane.witness.seen(lane.namespace, name) == before, "a child was made or deleted"
    figure("F10", f"old state for {3 * RESYNC_SECONDS:.0f} s: {seconds:.1f} s to the end after")


async def test_f10_reads_of_a_former_life(served, figure):
    """The service was deleted and made anew; old reads must not give the new one's children to the old."""
    lane, name, wanted = served
    yesterday = await answers_of_now(lane)
    await lane.delete(name)
    await lane.until(lambda: gone(lane, name))
    await lane.apply(name, SPEC)
    uid = (await lane.service(name))["metadata"]["uid"]
    reads = Match.of("get list", "stablediffusionservices rayservices daemonsets deployments secrets pods")
    with lane.proxy.rule(reads, Replay(yesterday)) as rule:
        await start_among(lane, rule)
    seconds = await healed(lane, name, wanted)
    for each in await lane.children():
        if each["metadata"].get("labels", {}).get(LABEL) == name:
            assert state.owners(each) == [uid], each["kind"]
    figure("F10", f"reads of a service of the same name that is gone: {seconds:.1f} s to the end after")


async def gone(lane, name):
    """Whether nothing is left of a service."""
    labels = [each["metadata"].get("labels") or {} for each in await lane.children()]
    return await lane.service(name) is None and all(each.get(LABEL) != name for each in labels)


async def test_f14_namespace_that_goes(open_lane, control_plane, figure):
    lane = await open_lane()
    for _ in range(3):
        await lane.serve()
    # It keeps the namespace there, which lets nothing in.
    keeper = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "keeper", "finalizers": ["testkit.dev/wait"]},
    }
    arguments = ("create", "-n", lane.namespace, "-f", "-")
    await asyncio.to_thread(control_plane.kubectl, *arguments, stdin=json.dumps(keeper))
    name = fresh_name()
    hold = Hold()
    with lane.proxy.rule(WRITES, hold, times=1):
        await lane.apply(name, SPEC)
        await hold.caught.wait()
        gone_soon = ("delete", "namespace", lane.namespace, "--wait=false")
        await asyncio.to_thread(control_plane.kubectl, *gone_soon)

    async def empty():
        return not await lane.services()

    await lane.until(empty)
    mark = lane.proxy.journal.mark()
    await asyncio.sleep(10)
    entries = lane.proxy.journal.since(mark)
    patch = ("patch", "configmap", "keeper", "-n", lane.namespace, "--type=merge", "-p")
    await asyncio.to_thread(control_plane.kubectl, *patch, '{"metadata": {"finalizers": null}}')
    broken = [
        *oracles.quiet(entries),
        *oracles.not_busy(entries, 10, lane.most_requests(0)),
        *oracles.few_restarts(lane.kubelet.codes, 0),
    ]
    assert not broken, "\n".join(broken)
    figure(
        "F14", f"namespace goes while four services are in it: {len(entries) * 6} requests per minute after"
    )


async def test_f15_deleted_while_the_operator_is_away(served, figure):
    lane, name, wanted = served
    await lane.kill()
    await lane.delete(name)
    seconds = await lane.until(lambda: gone(lane, name))
    lane.start()
    other = await lane.serve()
    assert await gone(lane, name)
    assert not oracles.same_end(wanted, other[1])
    figure("F15", f"deleted while the operator is away: all gone after {seconds:.1f} s")


async def test_f15_made_anew_while_the_operator_is_away(served, figure):
    lane, name, wanted = served
    await lane.kill()
    await lane.delete(name)
    await lane.apply(name, SPEC)
    uid = (await lane.service(name))["metadata"]["uid"]
    lane.start()
    seconds = await healed(lane, name, wanted)
    for each in await lane.children():
        if each["metadata"].get("labels", {}).get(LABEL) == name:
            assert state.owners(each) == [uid], each["kind"]
    figure("F15", f"made anew while the operator is away: {seconds:.1f} s to the end")


@pytest.mark.parametrize("number", range(1, 13))
async def test_f15_deleted_at_a_write(served, figure, number):
    """Whatever is written after the deletion finds no owner, and goes."""
    lane, name, hold = served[0], fresh_name(), Hold()
    with lane.proxy.rule(WRITES, hold, first=number, times=1):
        await lane.apply(name, SPEC)
        await asyncio.wait_for(hold.caught.wait(), 60)
        await lane.delete(name)
        await lane.until(lambda: is_gone(lane, name))

    async def is_over():
        return lane.calm_for() > CALM_SECONDS and await gone(lane, name)

    seconds = await lane.until(is_over)
    mark = lane.proxy.journal.mark()
    await asyncio.sleep(2 * RESYNC_SECONDS)
    assert await gone(lane, name)
    broken = [
        *oracles.quiet(lane.proxy.journal.since(mark)),
        *oracles.few_restarts(lane.kubelet.codes, 0),
    ]
    assert not broken, "\n".join(broken)
    figure("F15", f"deleted before write {number} of create: nothing is left after {seconds:.1f} s")


async def is_gone(lane, name):
    return await lane.service(name) is None
