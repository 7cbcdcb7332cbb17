# SPDX-License-Identifier: Apache-2.0
"""Changes that a LIST finds and no watch reported. The cluster is lists in memory."""

import asyncio

import pytest

from sd_operator.controller import resync as module
from sd_operator.controller.resync import Resync
from sd_operator.errors import ClusterUnavailable, KubeRayMissing, Refused
from sd_operator.kube import DAEMON_SET, DEPLOYMENT, NETWORK_POLICY, POD, RAY_CLUSTER, RAY_SERVICE, SERVICE
from sd_operator.naming import MANAGED_BY_LABEL, NAME_LABEL, RAY_POD_LABEL, Key
from sd_operator.settings import Settings

A, B = Key("team", "a"), Key("team", "b")


class Lists:
    """The API server: versions by kind, or an error."""

    def __init__(self):
        self.found = {SERVICE: {A: "1", B: "1"}, RAY_SERVICE: {A: "1"}, DAEMON_SET: {A: "1", B: "1"}}
        self.forbidden = set()

    async def metadata(self, kind, namespace, selector=""):
        found = self.found.get(kind, {})
        if isinstance(found, Exception):
            raise found
        if namespace in self.forbidden:
            raise Refused(f"{namespace} is forbidden")
        for key, version in found.items():
            if namespace in {None, key.namespace}:
                yield {
                    "namespace": key.namespace,
                    "name": key.name,
                    "uid": key.name,
                    "resourceVersion": version,
                    "labels": {NAME_LABEL: key.name, MANAGED_BY_LABEL: "us", RAY_POD_LABEL: "yes"},
                }

    async def pages(self, kind, namespace):
        """One service on each page."""
        async for metadata in self.metadata(kind, namespace):
            yield [{"metadata": metadata}]

    async def list_newest(self, kind, namespace, selector):
        return [
            {"metadata": each}
            async for each in self.metadata(kind, namespace)
            if selector == f"{NAME_LABEL} in ({each['name']})"
        ]

    def parts(self):
        return None, 20.0, lambda: True


class Queue:
    """What was asked for; `left` is what `prepared_left` was told."""

    def __init__(self):
        self.routine, self.prepared, self.left = set(), {}, []

    def add_routine(self, key):
        self.routine.add(key)

    def add_prepared(self, key, work):
        self.prepared[key] = work

    async def prepared_left(self, most, seconds):
        self.left.append(most)

    async def take_token(self):
        """There are enough."""


@pytest.fixture
def lists():
    return Lists()


@pytest.fixture
def looks(lists):
    """Resync once; the services that it asks a pass for. Settings and seconds that have passed are arguments."""
    now = [0.0]

    def build(**settings):
        queue = Queue()
        resync = Resync(lists, queue, Settings(**settings), lambda listed: listed, clock=lambda: now[0])

        async def look(later=0.0):
            queue.routine, queue.prepared = set(), {}
            now[0] += later
            await resync.once()
            assert not (queue.routine and queue.prepared)
            return queue.routine or set(queue.prepared)

        look.resync, look.queue = resync, queue
        return look

    return build


async def test_the_first_passes_work_from_lists(looks, lists):
    look = looks()
    assert await look() == {A, B}
    listed = look.queue.prepared[A]
    assert (await listed.get(SERVICE, "team", "a"))["metadata"]["uid"] == "a"
    assert await listed.get(RAY_SERVICE, "team", "a") == {
        "metadata": {**(await listed.get(SERVICE, "team", "a"))["metadata"]}
    }
    assert await listed.list(POD, "team", {NAME_LABEL: "a"}) == []
    assert look.queue.left == [1, 1, 0], "a batch waits for the one before the last"


async def test_what_changed_since_the_first_lists_is_found(looks, lists):
    """A watch began after them: it reports what there is, and not what was changed before."""
    for kind in (RAY_CLUSTER, DEPLOYMENT, NETWORK_POLICY, POD):
        lists.found[kind] = {A: "1", B: "1"}
    look = looks()
    assert await look() == {A, B}
    assert await look() == set()
    lists.found[POD] = {A: "1", B: "2"}
    assert await look() == {B}


async def test_a_watch_that_begins_makes_the_next_resync_come_soon(looks, lists, monkeypatch):
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.02)
    look = looks(resync_seconds=3600)
    running = asyncio.create_task(look.resync.run())
    async with asyncio.timeout(30):
        while not look.resync.is_complete():  # noqa: ASYNC110 - a state, not an event
            await asyncio.sleep(0.001)
        lists.found[POD] = {A: "1"}
        look.resync.soon()
        while not look.queue.routine:  # noqa: ASYNC110 - a set, not an event
            await asyncio.sleep(0.001)
    running.cancel()
    assert look.queue.routine == {A}


async def test_the_first_look_asks_for_everything_and_the_next_for_nothing(looks):
    look = looks()
    assert not look.resync.is_complete()
    assert await look() == {A, B}
    assert look.resync.is_complete()
    assert await look() == set()


@pytest.mark.parametrize(
    "kind", [SERVICE, RAY_SERVICE, RAY_CLUSTER, DAEMON_SET, POD], ids=lambda kind: kind.name
)
async def test_a_version_that_changed_unheard_is_found(looks, lists, kind):
    look = looks()
    await look()
    lists.found[kind] = {**lists.found.get(kind, {}), A: "2"}
    assert await look() == {A}
    assert await look() == set()


async def test_a_child_that_went_unheard_is_found(looks, lists):
    look = looks()
    await look()
    del lists.found[RAY_SERVICE][A]
    assert await look() == {A}


async def test_a_resource_that_went_or_came_unheard_is_found(looks, lists):
    look = looks()
    await look()
    lists.found[SERVICE] = {Key("team", "c"): "1", B: "1"}
    assert await look() == {A, Key("team", "c")}


async def test_objects_that_carry_the_label_of_nobody_are_nothing(looks, lists):
    look = looks()
    await look()
    lists.found[POD] = {Key("team", "stranger"): "1"}
    assert await look() == set()


async def test_everything_is_looked_at_once_in_a_long_while(looks):
    look = looks(full_resync_seconds=600)
    await look()
    assert await look(later=599) == set()
    assert await look(later=1) == {A, B}
    assert await look(later=1) == set()


@pytest.mark.parametrize("error", [KubeRayMissing("no such kind"), Refused("not yours")], ids=type)
async def test_a_kind_that_cannot_be_listed_is_left_out(looks, lists, error):
    lists.found[RAY_SERVICE] = error
    look = looks()
    assert await look() == {A, B}
    assert await look() == set()


async def test_a_kind_that_comes_or_goes_concerns_everyone(looks, lists):
    """KubeRay is installed: services that wait for it may be looked at again in minutes only."""
    lists.found[RAY_SERVICE] = KubeRayMissing("no such kind")
    look = looks()
    await look()
    lists.found[RAY_SERVICE] = {}
    assert await look() == {A, B}
    assert await look() == set()
    lists.found[RAY_SERVICE] = KubeRayMissing("no such kind")
    assert await look() == {A, B}


async def test_a_kind_that_one_namespace_forbids_is_there_all_the_same(looks, lists):
    lists.found[SERVICE][Key("other", "c")] = "1"
    found = lists.metadata

    async def metadata(kind, namespace, selector=""):
        if (kind, namespace) == (POD, "other"):
            raise Refused("pods of other")
        async for each in found(kind, namespace, selector):
            yield each

    lists.metadata = metadata
    look = looks(watch_namespaces="other,team")
    assert await look() == {A, B, Key("other", "c")}
    assert await look() == set()


async def test_the_first_service_of_all_is_passed_once(looks, lists):
    services, lists.found[SERVICE] = lists.found[SERVICE], {}
    look = looks()
    assert await look() == set()
    lists.found[SERVICE] = services
    assert await look() == {A, B}
    assert await look() == set()


async def test_namespaces_that_are_not_served_are_not_listed(looks, lists):
    lists.found[SERVICE][Key("other", "a")] = "1"
    assert await looks(watch_namespaces="team")() == {A, B}


async def test_a_forbidden_namespace_keeps_none_of_the_others(looks, lists):
    lists.forbidden = {"secret"}
    look = looks(watch_namespaces="secret,team")
    assert await look() == {A, B}
    lists.forbidden = {"secret", "team"}
    with pytest.raises(Refused):
        await look(later=5)
    assert look.resync.age_seconds() == 5


async def test_a_failed_list_counts_for_nothing_and_ends_the_process_after_ten_minutes(
    looks, lists, monkeypatch
):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    look = looks(resync_seconds=300)
    await look()
    lists.found[SERVICE] = ClusterUnavailable("away")
    with pytest.raises(ClusterUnavailable):
        await look(later=100)
    assert look.resync.age_seconds() == 100
    running = asyncio.create_task(look.resync.run())
    await asyncio.sleep(0.05)
    assert not running.done()
    with pytest.raises(ClusterUnavailable):
        await look(later=801)
    with pytest.raises(ClusterUnavailable, match="away"):
        await asyncio.wait_for(running, 30)
