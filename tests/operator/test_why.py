# SPDX-License-Identifier: Apache-2.0
import re
from datetime import timedelta

import pytest

from sd_operator import status
from sd_operator.api import Status
from sd_operator.api.status import Reason
from sd_operator.cli.why import lines
from sd_operator.trouble import Trouble
from sd_operator.why import explain

WORDS = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def live(generation=3, seen=3):
    metadata = {"name": "imagine", "namespace": "team", "generation": generation}
    return {"metadata": metadata, "status": {"observedGeneration": seen}}


@pytest.fixture
def waiting(scene):
    """A service whose only worker has had no node for twelve minutes."""
    trouble = Trouble(Reason.UNSCHEDULABLE, "worker pod w of group gpu", WORDS, "2026-01-02T02:52:05Z")
    worker = scene.but(scene.worker, name="w", ready=False, trouble=trouble)
    return scene.observed(
        pods=(scene.but(scene.head, name="h"), worker), serve=scene.serve(model=0, target=1)
    )


@pytest.fixture
def told(scene, resource):
    """An explanation, of a status that was computed an hour before."""

    def build(observed, body=None, events=(), hours=1, **spec):
        before = status.compute(
            resource(**spec), observed, "image:1", Status(), scene.now - timedelta(hours=hours)
        )
        after = status.compute(resource(**spec), observed, "image:1", before, scene.now)
        return explain(body or live(), after, observed, events, scene.now)

    return build


def test_what_is_waited_for_since_when_and_what_to_do(told, waiting):
    found = told(waiting)
    assert (
        found.headline
        == "imagine in namespace team is not ready: Unschedulable, for 60 min, 0/1 (1-1) replicas"
    )
    finding = found.findings[0]
    assert finding.words == (
        f"No replica of the model takes requests: worker pod w of group gpu, for 12 min: {WORDS}"
    )
    assert finding.advice.startswith("Add a node that fits")
    assert [row.cells for row in found.pods] == [("h", "headgroup", "ready"), ("w", "gpu", "Unschedulable")]


def test_the_same_cause_is_told_once(told, waiting):
    """Schedulable says what Ready says."""
    titles = [finding.title.split(":")[0] for finding in told(waiting).findings]
    assert titles.count("Ready") == 1
    assert "Schedulable" not in titles


def test_what_nobody_knows_yet_is_neither_good_nor_bad(told, waiting):
    marks = {row.cells[0]: row.good for row in told(waiting).conditions}
    assert (marks["Ready"], marks["Accepted"], marks["ModelAvailable"]) == (False, True, None)


def test_all_is_well(told, scene):
    found = told(scene.observed(serve=scene.serve()))
    assert found.good
    assert found.headline == "imagine in namespace team is ready: Serving, for 60 min, 1/1 (1-1) replicas"
    assert [finding.words for finding in found.findings] == ["Serving from imagine-abcde."]
    assert all(row.good for row in found.conditions)


def test_an_operator_that_is_behind_is_the_first_thing_to_know(told, scene):
    (finding, _) = told(scene.observed(serve=scene.serve()), live(generation=3, seen=2)).findings
    assert finding.title == "The operator has not taken up the latest change"
    assert finding.words == "status.observedGeneration is 2, the resource is at generation 3"


def event(name, reason, at, message="m", kind="Warning"):
    involved = {"kind": "Pod", "name": name}
    return {
        "involvedObject": involved,
        "reason": reason,
        "type": kind,
        "message": message,
        "lastTimestamp": at,
    }


def test_the_latest_warning_of_each_kind_is_shown(told, scene):
    events = [
        event("w", "FailedScheduling", "2026-01-02T03:00:05Z", "old"),
        event("w", "FailedScheduling", "2026-01-02T03:02:05Z", "no\nnode"),
        event("w", "FailedMount", "2026-01-02T03:03:35Z"),
        event("w", "Pulled", "2026-01-02T03:04:00Z", kind="Normal"),
    ]
    assert [row.cells for row in told(scene.observed(), events=events).events] == [
        ("30 s", "FailedMount", "Pod/w", "m"),
        ("2 min", "FailedScheduling", "Pod/w", "no node"),
    ]


@pytest.mark.parametrize(
    ("hours", "elapsed"), [(0, "0 s"), (1, "60 min"), (3.1, "3 h 6 min"), (53, "2 d 5 h")], ids=str
)
def test_elapsed_time_reads_well(told, scene, hours, elapsed):
    assert f"Serving, for {elapsed}, " in told(scene.observed(serve=scene.serve()), hours=hours).headline


def test_text_is_wrapped_for_a_terminal_and_left_alone_for_a_file(told, waiting):
    found = told(waiting, events=[event("w", "FailedScheduling", "2026-01-02T03:00:05Z", "word " * 40)])
    piped = [plain(line) for line in lines(found, None)]
    assert any(line.strip().endswith(WORDS) and "No replica" in line for line in piped)
    narrow = [plain(line) for line in lines(found, 72)]
    titles = {found.headline, *(finding.title for finding in found.findings)}
    assert all(len(line) <= 72 or any(title in line for title in titles) for line in narrow)
    assert " ".join(" ".join(narrow).split()) == " ".join(" ".join(piped).split()), "not a word is lost"


def plain(line):
    return re.sub(r"\x1b\[[0-9;]*m", "", line)
