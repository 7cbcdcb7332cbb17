# SPDX-License-Identifier: Apache-2.0
"""F26: the token of the pod is replaced, in time or late."""

import asyncio

from sd_testkit.fault_proxy import Match, Reply
from sd_testkit.proving import oracles
from sd_testkit.proving.lane import SPEC, fresh_name


async def test_f26_token_is_replaced(open_lane, root, tmp_path, figure):
    (tmp_path / "lane-0").mkdir()
    (tmp_path / "lane-0/token").write_text("first")
    lane = await open_lane(launcher=root / "tests/faults/pod.py")
    valid = {"first"}

    def is_refused(request):
        return request.authorization.removeprefix("Bearer ") not in valid

    lane.proxy.add(Match.of(where=is_refused), Reply(401, "Unauthorized"))
    _, wanted = await lane.serve()

    async def comes_up():
        name = fresh_name()
        await lane.apply(name, SPEC)
        seconds = await lane.reaches(name, wanted)
        broken = [*await lane.stays(name, wanted), *oracles.few_restarts(lane.kubelet.codes, 1)]
        assert not broken, "\n".join(broken)
        return seconds

    lane.token.write_text("second")
    valid.add("second")
    valid.discard("first")
    in_time = await comes_up()
    valid.add("third")
    valid.discard("second")
    await asyncio.sleep(6)
    lane.token.write_text("third")
    late = await comes_up()
    figure(
        "F26",
        f"token replaced: {in_time:.1f} s to the end of a new service, {late:.1f} s where every request"
        f" had been refused for 6 s; ended {len(lane.kubelet.codes)} times",
    )
