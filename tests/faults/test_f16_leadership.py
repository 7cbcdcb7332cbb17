# SPDX-License-Identifier: Apache-2.0
"""F16 and F17: two operators and one Lease.

One of them sleeps, or its clock is wrong. Proxies record their writes.
"""

import asyncio
import signal
from pathlib import Path

import pytest

from sd_testkit.node import host
from sd_testkit.proving import oracles
from sd_testkit.proving.lane import SPEC, fresh_name

FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
TAKES_OVER_SECONDS = 20
LEASE = "sd-operator"


@pytest.fixture
async def pair(open_lane):
    """Two operators of one namespace; the first leads. More in the environment of the second."""

    async def start(**environment):
        first = await open_lane()
        elected = {"SDSERVICE_LEADER_ELECTION": "true", "SDSERVICE_NAMESPACE": first.namespace}
        await first.kill()
        first.start(**elected, SDSERVICE_POD_NAME="first")
        await first.until(lambda: leads(first, "first"))
        second = await open_lane(first.namespace, **elected, SDSERVICE_POD_NAME="second", **environment)

        async def stands_by():
            return any(each.is_election for each in second.proxy.journal.entries)

        await second.until(stands_by)
        return first, second

    return start


async def leads(lane, who):
    lease = await lane.server.get("Lease", lane.namespace, LEASE)
    return lease is not None and lease["spec"].get("holderIdentity") == who


def one_writer_at_a_time(first, second):
    """The first wrote nothing any more once the second had begun."""
    begins = min((each.at for each in second.proxy.journal.writes()), default=float("inf"))
    return [str(each.request) for each in first.proxy.journal.writes() if each.at > begins]


async def comes_up(lane, wanted):
    name = fresh_name()
    await lane.apply(name, SPEC)
    seconds = await lane.reaches(name, wanted)
    broken = await lane.stays(name, wanted)
    assert not broken, "\n".join(broken)
    return seconds


async def test_f16_leader_that_sleeps_past_its_lease(pair, figure):
    first, second = await pair()
    name, wanted = await first.serve()
    assert not second.proxy.journal.writes()
    process = first.operator.process()
    process.send_signal(signal.SIGSTOP)
    try:
        seconds = await second.until(lambda: leads(second, "second"), within=60)
        await second.apply(name, {**SPEC, "limits": {"maxSteps": 33}})
        await second.apply(name, SPEC)
        await second.settled(name)
    finally:
        process.send_signal(signal.SIGCONT)

    async def ended():
        return first.kubelet.codes == [3]

    await first.until(ended)
    await comes_up(second, wanted)
    assert one_writer_at_a_time(first, second) == []
    assert seconds <= TAKES_OVER_SECONDS
    figure(
        "F16",
        f"leader stopped: the other leads after {seconds:.1f} s; woken, it writes nothing and ends with 3",
    )


async def test_f16_lease_that_is_deleted_or_edited(pair, figure):
    first, second = await pair()
    _, wanted = await first.serve()
    live = await first.server.get("Lease", first.namespace, LEASE)
    await first.server.delete(live)
    await comes_up(first, wanted)
    live = await first.server.get("Lease", first.namespace, LEASE)
    await first.server.merge(live, {"spec": {"holderIdentity": "nobody-we-know"}})

    async def passed_on():
        return await leads(first, "first") or await leads(first, "second")

    seconds = await first.until(passed_on, within=60)
    leader = first if await leads(first, "first") else second
    await comes_up(leader, wanted)
    assert not oracles.few_restarts(first.kubelet.codes + second.kubelet.codes, 1)
    figure("F16", f"Lease deleted: nothing changes; given to a stranger: led again after {seconds:.1f} s")


@pytest.mark.skipif(
    FAKETIME is None, reason=f"needs apt-get install {host.FAKETIME_PACKAGE}: make node-packages names it"
)
@pytest.mark.parametrize("offset", ["+600s", "-600s"])
async def test_f17_clock_of_the_other_is_wrong(pair, figure, offset):
    first, second = await pair(
        LD_PRELOAD=str(FAKETIME), FAKETIME=offset, DONT_FAKE_MONOTONIC="1", FAKETIME_DONT_RESET="1"
    )
    _, wanted = await first.serve()
    await asyncio.sleep(TAKES_OVER_SECONDS)
    assert await leads(first, "first")
    assert not second.proxy.journal.writes()
    await first.kill()
    seconds = await second.until(lambda: leads(second, "second"), within=60)
    assert seconds <= TAKES_OVER_SECONDS
    await comes_up(second, wanted)
    figure(
        "F17",
        f"clock of the standby {offset}: it waits while the leader lives, and leads {seconds:.1f} s after",
    )
