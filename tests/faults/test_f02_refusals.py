# SPDX-License-Identifier: Apache-2.0
"""F2 to F5 and F20: an API server that fails, is busy, reports conflicts, hangs, or refuses for good."""

import asyncio
import json
import random
import zlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from sd_testkit.fault_proxy import Cut, Drop, Hold, Match, Reply, Twice
from sd_testkit.proving import oracles, state
from sd_testkit.proving.lane import RESYNC_SECONDS, SPEC, fresh_name

STEPS = {"limits": {"maxSteps": 33}}
WRITES = Match.of("write", where=lambda request: request.resource != "leases")


async def healed(lane, name, wanted, restarts=0):
    """After a fault the end is reached, and stays; return the seconds it took."""
    seconds = await lane.reaches(name, wanted)
    broken = [*await lane.stays(name, wanted), *oracles.few_restarts(lane.kubelet.codes, restarts)]
    assert not broken, "\n".join(broken)
    return seconds


async def burst(lane, seconds, figure, row):
    """Every request fails for a while, with a code of its own; a service changes meanwhile and comes back to what it was."""
    name, wanted = await lane.serve()
    codes = [500, 502, 503, 504]
    random.Random(7).shuffle(codes)
    rules = [
        lane.proxy.add(
            Match.of(where=lambda request, n=n: zlib.crc32(request.path.encode()) % 4 == n), Reply(code)
        )
        for n, code in enumerate(codes)
    ]
    mark = lane.proxy.journal.mark()
    await lane.apply(name, {**SPEC, **STEPS})
    await lane.apply(name, SPEC)
    await asyncio.sleep(seconds)
    asked = len(lane.proxy.journal.since(mark))
    for rule in rules:
        lane.proxy.remove(rule)
    mark = lane.proxy.journal.mark()
    took = await healed(lane, name, wanted)
    writes = len(lane.proxy.journal.writes(mark))
    # The generation that the status is of; what changed there and back asks for nothing else.
    assert writes <= 3, Counter(str(each.request) for each in lane.proxy.journal.writes(mark))
    figure(
        row,
        f"5xx for {seconds} s: {asked / seconds * 60:.0f} requests per minute meanwhile, {took:.1f} s to the end after, {writes} writes",
    )


async def test_f02_server_errors_for_a_while(lane, figure):
    await burst(lane, 10, figure, "F2")


async def test_f02_server_errors_for_longer_than_kopf_waits(lane, figure):
    await burst(lane, 90, figure, "F2")


@pytest.mark.parametrize(
    ("written", "least"),
    [
        (lambda: "3", 3),
        (lambda: "3.0", 3),
        # A date has whole seconds, and some of a second goes by until it is read.
        (lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True), 3),
    ],
    ids=["seconds", "fraction", "date"],
)
async def test_f03_retry_after_is_kept(served, figure, written, least):
    lane, name, _ = served
    writes = Match.of("patch", "rayservices", name=name)
    with lane.proxy.rule(writes, Reply(429, headers={"Retry-After": written()}), times=1) as rule:
        await lane.apply(name, {**SPEC, **STEPS})

        async def tried_again():
            return rule.seen > 1

        await lane.until(tried_again)
    first, second = [each.at for each in lane.proxy.journal.entries if writes(each.request)][-2:]
    assert least <= second - first <= 30
    figure("F3", f"Retry-After: {written()}: tried again after {second - first:.1f} s")


@pytest.mark.parametrize(
    "refused",
    [
        Match.of("patch", "rayservices", subresource=""),
        Match.of("patch", "stablediffusionservices", subresource="status"),
        Match.of("create", "secrets"),
        Match.of("patch", "daemonsets"),
    ],
    ids=["rayservice", "status", "secret", "daemonset"],
)
async def test_f04_conflict_leads_to_a_fresh_read(served, figure, refused):
    lane, _, wanted = served
    name = fresh_name()
    with lane.proxy.rule(refused, Reply(409), times=3) as rule:
        await lane.apply(name, SPEC)
        seconds = await healed(lane, name, wanted)
        assert rule.hits == 3
    figure("F4", f"{next(iter(refused.resources))} in conflict three times: {seconds:.1f} s to the end")


async def test_f04_fields_taken_by_another_manager_come_back(served, figure):
    lane, name, wanted = served
    live = await lane.server.get("RayService", lane.namespace, name)
    theirs = {"apiVersion": "ray.io/v1", "kind": "RayService", "spec": {"serveConfigV2": "applications: []"}}
    theirs["metadata"] = {key: live["metadata"][key] for key in ("name", "namespace")}
    await lane.server.apply(theirs)
    seconds = await healed(lane, name, wanted)
    figure("F4", f"a field taken by another manager: back after {seconds:.1f} s")


@pytest.mark.parametrize("what", [WRITES, Match()], ids=["writes", "everything"])
async def test_f05_requests_that_hang(open_lane, figure, what):
    lane = await open_lane(SDSERVICE_REQUEST_TIMEOUT_SECONDS="2")
    name, wanted = await lane.serve()
    with lane.proxy.rule(what, Hold()) as rule:
        await lane.apply(name, {**SPEC, **STEPS})
        await asyncio.wait_for(rule.fault.caught.wait(), 30)
        await lane.apply(name, SPEC)
        await asyncio.sleep(8)
        # What hangs is given up; a proxy that lets go later forwards none of it.
    seconds = await healed(lane, name, wanted)
    figure("F5", f"requests hang for 8 s: {seconds:.1f} s to the end after")


@pytest.mark.parametrize(
    "fault", [Drop(), Drop(after=True), Cut(), Twice()], ids=["before", "after", "cut", "twice"]
)
async def test_f05_every_second_write_is_lost_or_repeated(served, figure, fault):
    lane, _, wanted = served
    name, number = fresh_name(), 0

    def second(request):
        nonlocal number
        number += WRITES(request)
        return WRITES(request) and number % 2 == 0

    with lane.proxy.rule(Match.of(where=second), fault) as rule:
        await lane.apply(name, SPEC)
        seconds = await healed(lane, name, wanted)
        assert rule.hits
    made = lane.witness.seen(lane.namespace, name)
    assert set(made.values()) == {1}, made
    figure("F5", f"every second write: {type(fault).__name__}: {seconds:.1f} s to the end")


async def test_f20_a_forbidden_helper_keeps_nothing_from_serving(lane, figure):
    """Images are not on the nodes beforehand: the status says so, and the service comes all the same."""
    name, message = (
        fresh_name(),
        'daemonsets is forbidden: User "operator" cannot write resource "daemonsets"',
    )
    with lane.proxy.rule(Match.of("create patch", "daemonsets"), Reply(403, message)):
        await lane.apply(name, SPEC)

        async def served_and_told():
            told = state.conditions(await lane.service(name))
            return told.get("Ready", ("",))[0] == "True" and told["ImagesPreloaded"] == ("False", "Refused")

        seconds = await lane.until(served_and_told)
        live = await lane.service(name)
        found = {each["type"]: each for each in live["status"]["conditions"]}
        assert message in found["ImagesPreloaded"]["message"]
        assert found["Accepted"]["status"] == "True"
        mark = lane.proxy.journal.mark()
        await asyncio.sleep(8)
        tried = [each for each in lane.proxy.journal.since(mark) if each.fault]
        assert len(tried) <= 1.5 * 8 / RESYNC_SECONDS + 2, "hot loop"

    async def mended():
        return state.conditions(await lane.service(name))["ImagesPreloaded"][0] == "True"

    await lane.until(mended)
    figure("F20", f"daemonsets forbidden: serves after {seconds:.1f} s, {len(tried)} tries in 8 s")


@pytest.mark.parametrize("kind", ["rayservices", "secrets"])
async def test_f20_one_kind_is_forbidden(served, figure, kind):
    lane, other, wanted = served
    name = fresh_name()
    message = f'{kind} is forbidden: User "operator" cannot write resource "{kind}" in the namespace'
    with lane.proxy.rule(Match.of("create patch", kind), Reply(403, message)):
        await lane.apply(name, SPEC)

        async def told():
            live = await lane.service(name)
            return state.conditions(live).get("Accepted", ("", ""))[0] == "False"

        seconds = await lane.until(told)
        live = await lane.service(name)
        text = next(each["message"] for each in live["status"]["conditions"] if each["type"] == "Accepted")
        assert kind in text
        assert not oracles.told_truly(live, {})
        mark = lane.proxy.journal.mark()
        await asyncio.sleep(8)
        tried = [each for each in lane.proxy.journal.since(mark) if each.fault]
        assert len(tried) <= 1.5 * 8 / RESYNC_SECONDS + 2, "hot loop"
        assert not oracles.same_end(wanted, await lane.state(other))
    await healed(lane, name, wanted)
    figure("F20", f"{kind} forbidden: told after {seconds:.1f} s, {len(tried)} tries in 8 s")


async def refused(lane, name, words):
    """Wait until `Accepted` tells of it in these words; return the seconds."""

    async def told():
        live = await lane.service(name)
        found = [each for each in live.get("status", {}).get("conditions", []) if each["type"] == "Accepted"]
        return found and found[0]["status"] == "False" and words in found[0]["message"]

    return await lane.until(told)


async def test_f20_webhook_that_is_away(served, control_plane, figure):
    """A real one, which nobody answers: a policy engine that is down."""
    lane, _, wanted = served
    where = {"kubernetes.io/metadata.name": lane.namespace}
    rule = {"apiGroups": ["ray.io"], "apiVersions": ["*"], "resources": ["rayservices"], "operations": ["*"]}
    hook = {
        "name": "policy.example.org",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": where},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    body |= {"metadata": {"name": lane.namespace}, "webhooks": [hook]}
    await asyncio.to_thread(control_plane.kubectl, "apply", "-f", "-", stdin=json.dumps(body))
    name = fresh_name()
    try:
        await asyncio.sleep(1)  # until the API server knows of it
        await lane.apply(name, SPEC)

        seconds = await refused(lane, name, "policy.example.org")
    finally:
        gone = ("delete", "validatingwebhookconfiguration", lane.namespace)
        await asyncio.to_thread(control_plane.kubectl, *gone)
    await healed(lane, name, wanted)
    figure("F20", f"a webhook that is away: told after {seconds:.1f} s")


async def test_f20_quota_that_is_full(served, control_plane, figure):
    """A real one: no Secret may be made."""
    lane, _, wanted = served
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}}
    quota["spec"] = {"hard": {"count/secrets": "1"}}
    arguments = ("apply", "-n", lane.namespace, "-f", "-")
    await asyncio.to_thread(control_plane.kubectl, *arguments, stdin=json.dumps(quota))
    counted = ("get", "resourcequota", "full", "-n", lane.namespace, "-o", "jsonpath={.status.used}")

    async def is_counted():
        return "secrets" in (await asyncio.to_thread(control_plane.kubectl, *counted)).stdout

    await lane.until(is_counted)
    name = fresh_name()
    await lane.apply(name, SPEC)

    seconds = await refused(lane, name, "quota")
    gone = ("delete", "resourcequota", "full", "-n", lane.namespace)
    await asyncio.to_thread(control_plane.kubectl, *gone)
    await healed(lane, name, wanted)
    figure("F20", f"a full quota: told after {seconds:.1f} s")
