# SPDX-License-Identifier: Apache-2.0
"""F13, F18 and F19: kinds that are removed and added, crashes of API server and etcd, and no webhook that could be down."""

import asyncio
import json

import pytest
from kubernetes.aio.client import ApiException

from sd_testkit.playground import install_crds, install_our_crd
from sd_testkit.proving import oracles, state
from sd_testkit.proving.lane import SPEC, fresh_name

OUR_KIND = "crd/stablediffusionservices.sdservice.dev"
THEIR_KIND = "crd/rayservices.ray.io"


@pytest.fixture
def kubectl(control_plane):
    async def run(*arguments, **more):
        return await asyncio.to_thread(control_plane.kubectl, *arguments, **more)

    return run


async def comes_up(lane, wanted, most_restarts):
    """A new service comes up as the first one did; return the seconds that took."""
    name = fresh_name()

    async def applied():
        try:
            await lane.apply(name, SPEC)
        except ApiException as error:
            return error.status not in {404, 503}  # a kind is served a moment after it is established
        return True

    await lane.until(applied)
    seconds = await lane.reaches(name, wanted, within=180)
    broken = [
        *await lane.stays(name, wanted),
        *oracles.few_restarts(lane.kubelet.codes, most_restarts),
    ]
    assert not broken, "\n".join(broken)
    return seconds


async def test_f13_our_kind_is_made_anew(served, kubectl, control_plane, figure):
    lane, _, wanted = served
    await kubectl("delete", OUR_KIND)
    await asyncio.to_thread(install_our_crd, control_plane)
    seconds = await comes_up(lane, wanted, 1)
    figure(
        "F13",
        f"our kind is made anew: {len(lane.kubelet.codes)} restarts, {seconds:.1f} s to the end of a new service",
    )


async def test_f13_our_kind_comes_late(open_lane, served, kubectl, control_plane, figure):
    _, _, wanted = served
    await kubectl("delete", OUR_KIND)
    late = await open_lane()
    await asyncio.sleep(8)
    asked = len(late.proxy.journal.entries)
    await asyncio.to_thread(install_our_crd, control_plane)
    seconds = await comes_up(late, wanted, 1)
    assert asked < 200, "hot loop"
    figure(
        "F13",
        f"our kind comes 8 s late: {asked} requests meanwhile, {seconds:.1f} s to the end of a new service",
    )


async def test_f13_kind_of_kuberay_goes_and_comes(served, kubectl, control_plane, figure):
    lane, name, wanted = served
    await kubectl("delete", THEIR_KIND)

    async def is_told():
        return state.conditions(await lane.service(name)).get("Accepted") == ("False", "KubeRayMissing")

    told = await lane.until(is_told)
    await asyncio.to_thread(install_crds, control_plane)
    seconds = await lane.reaches(name, wanted, within=180)
    assert not oracles.few_restarts(lane.kubelet.codes, 1)
    figure("F13", f"RayService's kind goes: told after {told:.1f} s; comes back: {seconds:.1f} s to the end")


@pytest.mark.parametrize("program", ["kube-apiserver", "etcd"])
@pytest.mark.parametrize("away", [3, 40])
async def test_f18_control_plane_dies(served, control_plane, figure, program, away):
    lane, name, wanted = served
    control_plane.crash(program)
    await asyncio.sleep(away)
    mark = lane.proxy.journal.mark()
    await asyncio.to_thread(control_plane.revive, program)
    first = await lane.reaches(name, wanted, within=180)
    second = await comes_up(lane, wanted, 1)
    writes = [str(each.request) for each in lane.proxy.journal.writes(mark) if each.request.name == name]
    assert len(writes) <= 3, writes
    ends = len(lane.kubelet.codes)
    figure(
        "F18",
        f"{program} away for {away} s: {ends} restarts, {first + second:.1f} s to the end of a new service",
    )


async def test_f19_nothing_of_ours_stands_between_users_and_the_api_server(served, kubectl, root, figure):
    lane, name, wanted = served
    kinds = "validatingwebhookconfigurations,mutatingwebhookconfigurations"
    assert (await kubectl("get", kinds, "-o", "name")).stdout == ""
    assert not [path for path in root.glob("charts/**/*.yaml") if "WebhookConfiguration" in path.read_text()]
    await lane.kill()
    body = json.dumps(lane.resource(fresh_name()) | {"spec": {**SPEC, "replicas": {"min": 3, "max": 1}}})
    refused = await kubectl("apply", "-f", "-", stdin=body, check=False)
    assert "min must not exceed max" in refused.stderr
    other = fresh_name()
    await lane.apply(other, SPEC)
    await lane.delete(name)

    async def is_gone():
        return await lane.service(name) is None

    await lane.until(is_gone)
    lane.start()
    seconds = await lane.reaches(other, wanted)
    figure(
        "F19",
        f"without an operator: specs are checked, services made and deleted; {seconds:.1f} s to the end after its start",
    )
