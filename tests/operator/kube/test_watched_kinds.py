# SPDX-License-Identifier: Apache-2.0
"""The kinds that the operator watches, and the owners of their objects."""

import pytest

from sd_operator.controller import handlers
from sd_operator.errors import ClusterUnavailable, Refused
from sd_operator.kube import GATEWAY
from sd_operator.kube.own_writes import OwnWrites
from sd_operator.kube.watched_kinds import CHILDREN, OPTIONAL, keys, watchable


class Lists:
    """An API server that answers a LIST of Gateways in each namespace, or refuses it."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    async def metadata(self, kind, namespace, selector=""):
        assert kind == GATEWAY
        self.asked.append(namespace)
        answer = self.answers.get(namespace, [])
        if isinstance(answer, Exception):
            raise answer
        for each in answer:
            yield each


ALL = (*CHILDREN, *OPTIONAL)
FORBIDDEN = Refused("gateways is forbidden")


@pytest.mark.parametrize(
    ("namespaces", "answers", "found"),
    [
        ((), {None: [{"name": "a"}, {"name": "b"}]}, ALL),
        ((), {None: []}, ALL),
        ((), {None: FORBIDDEN}, CHILDREN),
        (("a", "b"), {}, ALL),
        (("a", "b"), {"b": FORBIDDEN}, CHILDREN),
    ],
    ids=["there", "none yet", "no kind or no permission", "everywhere", "not in one namespace"],
)
async def test_gateways_are_watched_where_they_can_be_read(namespaces, answers, found):
    lists = Lists(answers)
    assert await watchable(lists, namespaces) == found
    assert lists.asked == (list(namespaces) or [None])


async def test_an_api_server_that_is_away_tells_nothing_about_kinds():
    with pytest.raises(ClusterUnavailable):
        await watchable(Lists({None: ClusterUnavailable("away")}), ())


def owned(kind, *, controller=True):
    return {"ownerReferences": [{"kind": kind, "name": "imagine", "controller": controller}]}


@pytest.mark.parametrize(
    ("metadata", "service"),
    [
        ({"labels": {"sdservice.dev/name": "imagine"}}, "imagine"),
        (owned("RayService"), "imagine"),
        (owned("RayService", controller=False), None),
        (owned("HelmRelease"), None),
        ({"labels": None, "ownerReferences": None}, None),
    ],
    ids=["by its label", "by its owner", "not its controller", "another's", "nobody's"],
)
def test_whose_an_object_is(metadata, service):
    found = keys({"namespace": "team", **metadata})
    assert found == ([("team", service)] if service else [])


class Queue:
    def __init__(self):
        self.asked = []

    def add_later(self, key, seconds):
        self.asked.append(key)


async def test_a_gateway_of_a_ray_service_asks_for_its_service_and_no_other_gateway_does():
    queue = Queue()
    registry = handlers.registry(queue, OwnWrites(), None, lambda: None, ALL)
    (handler,) = (each for each in registry._watching.get_all_handlers() if "gateways" in repr(each.selector))
    for metadata in (owned("RayService"), owned("HelmRelease")):
        event = {"type": "MODIFIED"}
        meta = {"namespace": "team", "uid": "u", "resourceVersion": "1", **metadata}
        await handler.fn(namespace="team", meta=meta, event=event)
    assert queue.asked == [("team", "imagine")]
