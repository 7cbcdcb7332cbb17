# SPDX-License-Identifier: Apache-2.0
import re
from datetime import timedelta

import pytest

from sd_operator import status
from sd_operator.api import Status, recorded_status
from sd_operator.api.status import ColdStart, Reason
from sd_operator.cli.explain import StartBar, explain
from sd_operator.cli.start_chart import chart
from sd_operator.cli.why import lines
from sd_operator.observe.cold_start import Phase
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.snapshot import PodTimes

WORDS = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def live(generation=3, seen=3):
    metadata = {"name": "imagine", "namespace": "team", "generation": generation}
    return {"metadata": metadata, "status": {"observedGeneration": seen}}


@pytest.fixture
def waiting(scene):
    """A service whose only worker has had no node for twelve minutes."""
    problem = PodProblem(Reason.UNSCHEDULABLE, "worker pod w of group gpu", WORDS, "2026-01-02T02:52:05Z")
    worker = scene.but(scene.worker, name="w", ready=False, problem=problem)
    return scene.snapshot(
        pods=(scene.but(scene.head, name="h"), worker), serve=scene.serve(model=0, target=1)
    )


@pytest.fixture
def told(scene, resource):
    """An explanation, of a status that was computed an hour before."""

    def build(snapshot, body=None, events=(), hours=1, **spec):
        before = status.compute(
            resource(**spec), snapshot, "image:1", Status(), scene.now - timedelta(hours=hours)
        )
        after = status.compute(resource(**spec), snapshot, "image:1", before, scene.now)
        return explain(body or live(), after, snapshot, events, scene.now)

    return build


def test_what_is_waited_for_since_when_and_what_to_do(told, waiting):
    found = told(waiting)
    assert (
        found.headline
        == "imagine in namespace team is not ready: Unschedulable, for 60 min, 0/1 (1-1) replicas"
    )
    finding = found.findings[0]
    assert finding.message == (
        f"No replica of the model accepts requests: worker pod w of group gpu, for 12 min: {WORDS}"
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
    found = told(scene.snapshot(serve=scene.serve()))
    assert found.good
    assert found.headline == "imagine in namespace team is ready: Serving, for 60 min, 1/1 (1-1) replicas"
    assert [finding.message for finding in found.findings] == ["RayCluster imagine-abcde serves requests."]
    assert all(row.good for row in found.conditions)


def test_what_a_newer_operator_reports_is_shown_as_it_is(told, waiting):
    """A type or a reason that this version does not know is no error, and comes after what it knows."""
    body = live()
    body["status"]["conditions"] = [
        {"type": "Ready", "status": "False", "reason": "Starting", "message": "m"},
        {
            "type": "Ready",
            "status": "False",
            "reason": "GpuOnHoliday",
            "message": "The GPU is away.",
            "lastTransitionTime": "2026-01-02T03:03:05Z",
        },
        {"type": "Billed", "status": "True", "reason": "Paid", "message": "All is paid."},
        {},
    ]
    found = told(waiting, body)
    assert found.findings[0].title.startswith("Ready: ")
    newer = found.findings[-3:]
    assert [each.title for each in newer[:2]] == [
        "Ready=False: GpuOnHoliday, as the operator reported",
        "Billed=True: Paid, as the operator reported",
    ]
    assert (newer[0].message, newer[0].elapsed) == ("The GPU is away.", "60 s")
    assert "older than the operator" in newer[0].advice


def test_a_status_of_a_newer_operator_is_read_as_far_as_it_can_be():
    condition = {"type": "Ready", "status": "True", "reason": "New", "message": "m", "observedGeneration": 2}
    condition["lastTransitionTime"] = "2026-01-02T03:03:05Z"
    recorded = {"conditions": [condition], "observedGeneration": 2, "bill": {"paid": True}, "url": 7}
    found = recorded_status({"status": recorded})
    assert found.observed_generation == 2
    assert found.conditions[0].reason == "New"
    assert found.url is None
    assert recorded_status({"status": {"conditions": [{"new": 1}]}}) == Status()
    assert recorded_status({}) == Status()


def test_an_operator_that_is_behind_is_the_first_thing_to_know(told, scene):
    (finding, _) = told(scene.snapshot(serve=scene.serve()), live(generation=3, seen=2)).findings
    assert finding.title == "The operator has not processed the latest change"
    assert finding.message == "The resource is at generation 3, and the stored status is of generation 2."


def event(name, reason, at, message="m", kind="Warning"):
    involved = {"kind": "Pod", "name": name}
    return {
        "involvedObject": involved,
        "reason": reason,
        "type": kind,
        "message": message,
        "lastTimestamp": at,
    }


@pytest.fixture
def starting(scene):
    """Workers whose pods wait for a node, the first for 90 s, the others for less."""

    def build(count):
        pods = [
            scene.but(
                scene.worker,
                name=f"w{number}",
                ready=False,
                times=PodTimes(scene.now - timedelta(seconds=90 - number)),
            )
            for number in range(count)
        ]
        return scene.snapshot(pods=(scene.head, *pods), serve=scene.serve(model=0, target=count))

    return build


def test_a_start_that_runs_is_shown_with_its_phases(told, starting):
    assert told(starting(1)).starts == (
        StartBar("Worker w0 is starting, for 90 s", {Phase.NODE: 90.0}, Phase.NODE),
    )


def test_of_many_starts_the_oldest_are_shown(told, starting):
    assert [each.title for each in told(starting(5)).starts] == [
        "Worker w0 is starting, for 90 s",
        "Worker w1 is starting, for 89 s",
        "Worker w2 is starting, for 88 s (2 more workers are starting)",
    ]


LAST = ColdStart(
    worker="w",
    ready_at="2026-01-02T01:04:05Z",
    total_seconds=206.5,
    node_seconds=13,
    image_seconds=121,
    ray_seconds=53,
    weights_seconds=17.8,
    pipeline_seconds=1.7,
    first_picture_seconds=2.5,
)


def test_else_the_last_start_is_shown(scene, resource, starting):
    def shown(snapshot):
        after = status.compute(resource(), snapshot, "image:1", Status(cold_start=LAST), scene.now)
        return explain(live(), after, snapshot, (), scene.now).starts

    (bar,) = shown(scene.snapshot(serve=scene.serve()))
    assert bar.title == "Last start: worker w, 3 min, 2 h 0 min ago; its first picture took 2.5 s"
    assert (sum(bar.seconds.values()), bar.running) == (206.5, None)
    assert [each.running for each in shown(starting(1))] == [Phase.NODE]


def test_a_worker_on_record_has_started_whatever_is_told_of_it_now(scene, resource, starting):
    """Ray may not be asked, or may not answer, at this moment."""
    last = LAST.model_copy(update={"worker": "w0"})
    after = status.compute(resource(), starting(2), "image:1", Status(cold_start=last), scene.now)
    titles = [each.title for each in explain(live(), after, starting(2), (), scene.now).starts]
    assert titles == ["Worker w1 is starting, for 89 s"]


def test_a_chart_places_each_phase_where_the_one_before_ends():
    seconds = {Phase.NODE: 10.0, Phase.IMAGE: 29.6, Phase.WEIGHTS: 0.0, Phase.PIPELINE: 0.4}
    assert list(chart(StartBar("", seconds, Phase.PIPELINE))) == [
        f"  node      {'█' * 10:<40}    10.0 s",
        f"  image     {' ' * 10}{'█' * 30:<30}    29.6 s",
        f"  weights   {' ' * 39}█     0.0 s",
        f"  pipeline  {' ' * 39}▒     0.4 s  ← now",
    ]


def test_delays_that_do_not_fit_are_told_of_although_nothing_is_wrong(told, scene, resource):
    slow = LAST.model_copy(update={"total_seconds": 900.0})
    asked = resource(replicas={"min": 1, "max": 2})
    snapshot = scene.snapshot(serve=scene.serve(spec=asked))
    after = status.compute(asked, snapshot, "image:1", Status(cold_start=slow), scene.now)
    found = explain(live(), after, snapshot, (), scene.now)
    assert found.good
    assert [finding.title.split(":")[0] for finding in found.findings] == ["Ready", "ConfigApplied"]
    assert "Set autoscaling.idleWorkerSeconds to 600 or more" in found.findings[1].message


def test_the_latest_warning_of_each_kind_is_shown(told, scene):
    events = [
        event("w", "FailedScheduling", "2026-01-02T03:00:05Z", "old"),
        event("w", "FailedScheduling", "2026-01-02T03:02:05Z", "no\nnode"),
        event("w", "FailedMount", "2026-01-02T03:03:35Z"),
        event("w", "Pulled", "2026-01-02T03:04:00Z", kind="Normal"),
    ]
    assert [row.cells for row in told(scene.snapshot(), events=events).events] == [
        ("30 s", "FailedMount", "Pod/w", "m"),
        ("2 min", "FailedScheduling", "Pod/w", "no node"),
    ]


@pytest.mark.parametrize(
    ("hours", "elapsed"), [(0, "0 s"), (1, "60 min"), (3.1, "3 h 6 min"), (53, "2 d 5 h")], ids=str
)
def test_elapsed_time_reads_well(told, scene, hours, elapsed):
    assert f"Serving, for {elapsed}, " in told(scene.snapshot(serve=scene.serve()), hours=hours).headline


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
