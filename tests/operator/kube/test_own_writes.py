# SPDX-License-Identifier: Apache-2.0
"""The operator recognizes its own writes when they return as events."""

import asyncio

import pytest

from sd_operator.controller import handlers
from sd_operator.kube.own_writes import OwnWrites


def version(uid, number):
    return {"uid": uid, "resourceVersion": str(number)}


def test_only_the_version_that_was_written_last_is_an_echo():
    own_writes = OwnWrites()
    assert not own_writes.is_one(version("a", 1))
    own_writes.wrote(version("a", 1))
    own_writes.wrote(version("b", 2))
    assert own_writes.is_one(version("a", 1))
    own_writes.wrote(version("a", 3))
    assert not own_writes.is_one(version("a", 1)), "something was between the two writes"
    assert not own_writes.is_one(version("a", 4)), "someone else wrote"
    assert not own_writes.is_one(version("b", 3))
    assert own_writes.is_one(version("b", 2))


def test_few_are_remembered():
    own_writes = OwnWrites(most=2)
    for uid in ("a", "b", "a", "c"):
        own_writes.wrote(version(uid, 1))
    assert [own_writes.is_one(version(uid, 1)) for uid in "abc"] == [True, False, True]


@pytest.mark.parametrize(("change", "echo"), [("ADDED", True), ("MODIFIED", True), ("DELETED", False)])
async def test_an_event_may_come_before_the_answer_to_its_write(monkeypatch, change, echo):
    monkeypatch.setattr(handlers, "ECHO_SECONDS", 0.05)
    own_writes = OwnWrites()
    told = asyncio.create_task(handlers.is_echo(change, version("a", 1), own_writes))
    await asyncio.sleep(0)
    own_writes.wrote(version("a", 1))
    assert await told == echo
