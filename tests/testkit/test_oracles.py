# SPDX-License-Identifier: Apache-2.0
"""Each oracle finds its violation and describes it, and is silent otherwise."""

import copy

import pytest

from sd_testkit.fault_proxy.journal import Entry
from sd_testkit.fault_proxy.request import ApiRequest
from sd_testkit.proving import oracles, state

LABELS = {"sdservice.dev/name": "qabc"}


def service(name="qabc", uid="uid-1", generation=2, **status):
    told = {"type": "Ready", "status": "True", "reason": "Serving", "message": "since 2026-11-25T10:00:01Z"}
    return {
        "metadata": {"name": name, "namespace": "team", "uid": uid, "generation": generation},
        "spec": {"replicas": {"max": 1}},
        "status": {"observedGeneration": 2, "conditions": [told], **status},
    }


def child(kind="RayService", name="qabc", uid="uid-1", **spec):
    metadata = {"name": name, "namespace": "team", "labels": LABELS, "ownerReferences": [{"uid": uid}]}
    return {"kind": kind, "metadata": metadata, "spec": spec}


def entry(verb="patch", resource="rayservices", forwarded=True, at=0.0):
    return Entry(at, ApiRequest(verb, resource=resource, name="qabc"), 200, forwarded)


def test_two_runs_of_the_same_are_the_same():
    later = service("qxyz", "uid-2")
    later["status"]["conditions"][0]["message"] = "since 2026-11-25T11:30:00Z"
    later["status"]["coldStart"] = {"totalSeconds": 3}
    other = copy.deepcopy(child(name="qxyz", uid="uid-2"))
    other["metadata"]["labels"] = {"sdservice.dev/name": "qxyz"}
    one, two = state.of(service(), [child()]), state.of(later, [other, child()])
    assert oracles.same_end(one, two) == []


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        (child(suspend=True), "spec.suspend: True, wanted nothing"),
        (child(uid="uid-9"), "owners[0].uid: 'uid-9', wanted 'UID'"),
        (child("DaemonSet", "qabc-preload-gpu"), "DaemonSet NAME-preload-gpu"),
    ],
    ids=["field", "owner", "child"],
)
def test_another_end_is_told(changed, word):
    found = oracles.same_end(state.of(service(), [child()]), state.of(service(), [changed]))
    assert any(word in each for each in found), found


def test_status_of_an_older_spec_is_told():
    found = oracles.told_truly(service(generation=3), {"Ready": ("False", "NoReplicas")})
    assert found == [
        "(e) observedGeneration is 2, generation 3",
        "(e) Ready is ('True', 'Serving'), wanted ('False', 'NoReplicas')",
    ]
    assert oracles.told_truly(service(), {"Ready": ("True", "Serving")}) == []


def test_children_that_were_made_again_are_told():
    once = {"created RayService NAME": 1}
    assert oracles.no_more_made(once, once) == []
    twice = {"created RayService NAME": 2, "deleted RayService NAME": 1}
    assert oracles.no_more_made(once, twice) == [
        "(b) created RayService NAME: 2 times, 1 without faults",
        "(b) deleted RayService NAME: 1 times, 0 without faults",
    ]


def test_writes_after_the_end_are_told_whether_they_arrived_or_not():
    silent = [entry("get"), entry("update", "leases")]
    assert oracles.quiet(silent) == []
    found = oracles.quiet([*silent, entry(), entry(forwarded=False)])
    assert found == ["(c) patch rayservices/qabc: 2 times after the end was reached"]


def test_changes_after_the_end_are_told():
    assert oracles.stable({"a": "1"}, {"a": "1"}) == []
    assert oracles.stable({"a": "1"}, {"a": "2"}) == ["(c) a went from 1 to 2"]


def test_a_hot_loop_is_told():
    many = [entry("get")] * 50
    assert oracles.not_busy(many, 10, 300) == []
    assert oracles.not_busy(many, 10, 299) == [
        "(d) 300 requests per minute, 299 are allowed: 50 x get rayservices/qabc"
    ]


def test_what_nobody_owns_is_told():
    assert oracles.no_orphans([service()], [child()]) == []
    assert oracles.no_orphans([service(uid="uid-2")], [child()]) == [
        "(f) RayService qabc of qabc has no owner"
    ]


def test_too_many_restarts_are_told():
    assert oracles.few_restarts([1], 1) == []
    assert oracles.few_restarts([1, 3], 1) == ["(g) 2 ends with codes [1, 3], 1 are allowed"]
