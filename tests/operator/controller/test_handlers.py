# SPDX-License-Identifier: Apache-2.0
"""The entry that an event adds to the queue. The handlers are those that kopf would call."""

import pytest

from sd_operator.controller import handlers
from sd_operator.kube.own_writes import OwnWrites
from sd_operator.naming import NAME_LABEL, Key

KEY = Key("team", "imagine")


class Queue:
    def __init__(self):
        self.added = []

    def add(self, key):
        self.added.append(key)

    def add_later(self, key, seconds):
        self.added.append(key)


@pytest.fixture
def heard(monkeypatch):
    """Call the handlers of a kind with an event; what was put into the queue, and how often a watch has begun."""
    monkeypatch.setattr(handlers, "ECHO_SECONDS", 0.001)
    queue, own_writes, began = Queue(), OwnWrites(), []
    own_writes.wrote({"uid": "ours", "resourceVersion": "7"})
    registry = handlers.registry(queue, own_writes, None, lambda: began.append(1))

    async def hear(handler, change, status=None, **metadata):
        identity = {"namespace": "team", "name": "imagine", "labels": {NAME_LABEL: "imagine"}}
        meta = {**identity, "uid": "a", "resourceVersion": "1", "generation": 2, **metadata}
        (call, *_) = (
            each.fn for each in registry._watching.get_all_handlers() if each.fn.__name__ == handler
        )
        await call(
            namespace="team",
            name="imagine",
            meta=meta,
            status=status or {},
            event={"type": change},
        )
        return queue.added, len(began)

    return hear


@pytest.mark.parametrize("change", ["ADDED", "MODIFIED", "DELETED"])
async def test_an_event_of_a_child_asks_for_a_pass(heard, change):
    assert await heard("child_changed", change) == ([KEY], 0)


async def test_what_a_watch_reports_of_the_time_before_asks_for_a_comparison_only(heard):
    assert await heard("child_changed", None) == ([], 1)


async def test_what_the_operator_wrote_asks_for_nothing(heard):
    assert await heard("child_changed", "MODIFIED", uid="ours", resourceVersion="7") == ([], 0)


@pytest.mark.parametrize("change", [None, "ADDED", "MODIFIED"])
async def test_a_spec_that_no_status_speaks_of_asks_for_a_pass(heard, change):
    assert await heard("service_changed", change, {"observedGeneration": 1}) == ([KEY], 0)


@pytest.mark.parametrize("change", [None, "MODIFIED"])
async def test_a_status_that_the_operator_wrote_asks_for_nothing(heard, change):
    assert await heard("service_changed", change, {"observedGeneration": 2}) == ([], 0)
