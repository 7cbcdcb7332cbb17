# SPDX-License-Identifier: Apache-2.0
"""Services join and leave a DaemonSet of their namespace. No service loses it through the pass of another one."""

import asyncio
import copy

import pytest

from sd_operator.api import parse
from sd_operator.builders.preload import preload_daemon_sets
from sd_operator.errors import ClusterUnavailable, NameConflict
from sd_operator.kube.preload_sharing import MOST_USERS, SharedPreloads
from sd_operator.naming import Key
from sd_operator.settings import Settings


class OneKind:
    """DaemonSets as an API server keeps them: versions, preconditions, and who applied what."""

    def __init__(self):
        self.live, self.version, self.writes = {}, 0, []
        self.before_apply = None

    async def get(self, kind, namespace, name):
        await asyncio.sleep(0)
        return copy.deepcopy(self.live.get(name))

    async def list(self, kind, namespace, labels=None, fields=None):
        return copy.deepcopy(list(self.live.values()))

    async def apply(self, body, manager):
        await asyncio.sleep(0)
        if self.before_apply:
            self.before_apply, act = None, self.before_apply
            act()
        name = body["metadata"]["name"]
        self._expect(name, body["metadata"].get("resourceVersion"))
        self.writes.append("apply")
        metadata = {**body["metadata"], "uid": "uid-d", "generation": 1}
        entry = {
            "manager": manager,
            "operation": "Apply",
            "fieldsV1": {"f:metadata": _owned(metadata), "f:spec": {}},
        }
        self.put({**body, "metadata": {**metadata, "managedFields": [entry]}})
        return copy.deepcopy(self.live[name])

    async def patch(self, kind, live, operations, manager):
        name = live["metadata"]["name"]
        test, remove = operations
        number = int(remove["path"].rpartition("/")[2])
        references = self.live[name]["metadata"]["ownerReferences"]
        if number >= len(references) or references[number]["uid"] != test["value"]:
            return None
        self.writes.append("patch")
        body = copy.deepcopy(self.live[name])
        del body["metadata"]["ownerReferences"][number]
        self.put(body)
        return body

    async def delete(self, kind, live, *, unchanged=False):
        self._expect(live["metadata"]["name"], live["metadata"]["resourceVersion"] if unchanged else None)
        self.writes.append("delete")
        del self.live[live["metadata"]["name"]]

    def put(self, body):
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.live[body["metadata"]["name"]] = body

    def _expect(self, name, version):
        found = self.live.get(name, {}).get("metadata", {}).get("resourceVersion")
        if version is not None and version != found:
            raise ClusterUnavailable("the object has been modified")


def _owned(metadata):
    references = {f'k:{{"uid":"{each["uid"]}"}}': {} for each in metadata["ownerReferences"]}
    return {"f:labels": {f"f:{key}": {} for key in metadata["labels"]}, "f:ownerReferences": references}


@pytest.fixture
def cluster():
    return OneKind()


@pytest.fixture
def shared(cluster):
    return SharedPreloads(cluster)


@pytest.fixture
def wanted(service):
    def build(number):
        identity = {"name": f"s{number}", "namespace": "team", "uid": f"uid-{number}", "generation": 1}
        (built,) = preload_daemon_sets(parse(service(metadata=identity)), Settings())
        return built

    return build


@pytest.fixture
def users(cluster):
    def read():
        return {each["uid"] for live in cluster.live.values() for each in live["metadata"]["ownerReferences"]}

    return read


def only(live):
    (found,) = live.values()
    return found


async def test_a_hundred_that_come_at_the_same_time_are_all_in(cluster, shared, wanted, users):
    await asyncio.gather(*(shared.join(wanted(number), None) for number in range(100)))
    assert users() == {f"uid-{number}" for number in range(100)}
    assert len(cluster.live) == 1


async def test_who_is_in_writes_nothing(cluster, shared, wanted):
    await shared.join(wanted(1), None)
    await shared.join(wanted(2), None)
    cluster.writes.clear()
    for number in (1, 2):
        known = (await shared.read("team"))[wanted(1)["metadata"]["name"]]
        after, written = await shared.join(wanted(number), known)
        assert (after["metadata"]["resourceVersion"], written) == ("2", False)
    assert cluster.writes == []


async def test_what_is_remembered_of_it_may_be_old(cluster, shared, wanted, users):
    old, _ = await shared.join(wanted(1), None)
    await shared.join(wanted(2), None)
    await shared.join(wanted(3), old)
    assert users() == {"uid-1", "uid-2", "uid-3"}


async def test_another_operator_that_writes_between_read_and_write_loses_nobody(
    cluster, shared, wanted, users
):
    await shared.join(wanted(1), None)

    def other():
        body = copy.deepcopy(only(cluster.live))
        body["metadata"]["ownerReferences"].append(wanted(9)["metadata"]["ownerReferences"][0])
        cluster.put(body)

    cluster.before_apply = other
    with pytest.raises(ClusterUnavailable):
        await shared.join(wanted(2), None)
    await shared.join(wanted(2), None)
    assert users() == {"uid-1", "uid-2", "uid-9"}


async def test_who_leaves_takes_only_himself_along_and_the_last_one_takes_it(cluster, shared, wanted, users):
    for number in (1, 2, 3):
        await shared.join(wanted(number), None)
    assert not await shared.leave(only(cluster.live), "uid-2")
    assert users() == {"uid-1", "uid-3"}
    assert not await shared.leave(only(cluster.live), "uid-1")
    assert await shared.leave(only(cluster.live), "uid-3")
    assert cluster.live == {}


async def test_it_is_not_deleted_under_one_who_has_just_joined(cluster, shared, wanted, users):
    alone, _ = await shared.join(wanted(1), None)
    await shared.join(wanted(2), alone)
    with pytest.raises(ClusterUnavailable):
        await shared.leave(alone, "uid-1")
    assert users() == {"uid-1", "uid-2"}


async def test_who_leaves_by_an_old_list_takes_nobody_else_out(cluster, shared, wanted, users):
    for number in (1, 2, 3):
        await shared.join(wanted(number), None)
    old = only(cluster.live)
    await shared.leave(old, "uid-1")
    with pytest.raises(ClusterUnavailable):
        await shared.leave(old, "uid-3")
    assert users() == {"uid-2", "uid-3"}


async def test_one_of_someone_else_is_left_alone(cluster, shared, wanted):
    body = {**wanted(1), "metadata": {**wanted(1)["metadata"], "ownerReferences": []}}
    cluster.put(body)
    with pytest.raises(NameConflict):
        await shared.join(wanted(1), None)
    assert cluster.writes == []


async def test_an_object_does_not_grow_without_end(cluster, shared, wanted, users):
    await shared.join(wanted(0), None)
    body = copy.deepcopy(only(cluster.live))
    reference = body["metadata"]["ownerReferences"][0]
    body["metadata"]["ownerReferences"] = [{**reference, "uid": f"u{each}"} for each in range(MOST_USERS)]
    cluster.put(body)
    await shared.join(wanted(1), None)
    assert len(users()) == MOST_USERS


async def test_a_change_concerns_those_that_wait_and_one_that_repairs(cluster, shared, wanted):
    for number in range(4):
        await shared.join(wanted(number), None)
    metadata = only(cluster.live)["metadata"]
    shared.waits(Key("team", "s2"), waits=True)
    assert shared.concerned(metadata, gone=False) == [Key("team", "s0"), Key("team", "s2")]
    shared.waits(Key("team", "s2"), waits=False)
    assert shared.concerned(metadata, gone=False) == [Key("team", "s0")]
    assert len(shared.concerned(metadata, gone=True)) == 4
