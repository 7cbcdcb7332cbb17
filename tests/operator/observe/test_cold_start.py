# SPDX-License-Identifier: Apache-2.0
"""The start of a worker, from the pod status of a kubelet and from the reports of replicas."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sd_operator.observe import cold_start
from sd_operator.observe.cold_start import Phase, Start
from sd_operator.observe.snapshot import observe
from sd_operator.ray.replica_starts import StartReport
from sd_operator.ray.serve_state import DeploymentState, Reading, ReplicaState, ServeState

CLUSTER, ADDRESS = "imagine-x7k2p", "10.244.1.7"
CREATED = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)


def at(seconds):
    return CREATED + timedelta(seconds=seconds)


def stamp(seconds):
    return at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(name="imagine-x7k2p-gpu-worker-9fw4d", scheduled=None, init=None, started=None, created=0, **more):
    """A worker pod of KubeRay with its init container, at seconds after it was created; None: not there yet."""
    is_placed = scheduled is not None
    conditions = [
        {
            "type": "PodScheduled",
            "status": str(is_placed),
            "lastTransitionTime": stamp(created + (scheduled if is_placed else 0)),
        }
    ]
    creating = {"waiting": {"reason": "PodInitializing"}}
    waits = creating
    if init is not None:
        waits = {"running": {"startedAt": stamp(created + init)}}
    if started is not None:
        ended = {"exitCode": 0, "startedAt": stamp(created + init), "finishedAt": stamp(created + started)}
        waits = {"terminated": ended}
    runs = creating if started is None else {"running": {"startedAt": stamp(created + started)}}
    status = {
        "phase": "Pending" if started is None else "Running",
        "conditions": conditions,
        "podIP": ADDRESS if is_placed else "",
    }
    if is_placed:
        status["initContainerStatuses"] = [{"name": "wait-gcs-ready", "state": waits}]
        status["containerStatuses"] = [{"name": "ray-worker", "state": runs}]
    labels = {
        "ray.io/is-ray-node": "yes",
        "ray.io/cluster": CLUSTER,
        "ray.io/group": "gpu",
        "ray.io/node-type": "worker",
    }
    metadata = {"name": name, "uid": name, "labels": labels, "creationTimestamp": stamp(created)}
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "ray-worker"}]},
        "status": {**status, **more},
    }


WARM = pod(scheduled=13, init=134, started=160)
REPORT = StartReport(
    began=at(170.5),
    seconds={"import": 12.25, "weights": 17.75, "pipeline": 9.5, "compile": 33.0},
    phase="",
    since=at(243),
)


def seen(*pods, reports=None, replicas=None, target=1, state="RUNNING"):
    """Pods, and what Serve and the replicas in them told; replicas are (address, running) by id."""
    reports = reports or {}
    replicas = {name: (ADDRESS, not each.phase) for name, each in reports.items()} | (replicas or {})
    models = {name: ReplicaState(*each) for name, each in replicas.items()}
    model = DeploymentState("UPDATING", "", target, 0, replicas=models)
    reading = Reading(ServeState(state, deployments={"model": model}), at(0), starts=reports)
    return replace(observe(None, pods), serve={CLUSTER: reading})


def one(snapshot, now):
    (found,) = cold_start.starts(snapshot, at(now))
    return found


def test_every_phase_of_a_start_that_is_over():
    found = one(seen(WARM, reports={"a": REPORT}), 9999)
    assert found == Start(
        "imagine-x7k2p-gpu-worker-9fw4d",
        {
            Phase.NODE: 13.0,
            Phase.IMAGE: 121.0,
            Phase.RAY: 48.8,  # from the init container that waits for the head to the end of the imports
            Phase.WEIGHTS: 17.8,
            Phase.PIPELINE: 9.5,
            Phase.COMPILE: 33.0,
        },
        ready_at=at(243),
    )
    assert list(found.seconds) == sorted(found.seconds, key=list(Phase).index)
    assert found.total == pytest.approx(243, abs=0.2)
    assert found.running is None


UNPLACED, PULLING = pod(), pod(scheduled=13)
WAITING = pod(scheduled=13, init=134)
FETCHING = StartReport(at(170.5), {"import": 12.25}, "weights", at(182.75))


@pytest.mark.parametrize(
    ("snapshot", "now", "running", "seconds"),
    [
        (seen(UNPLACED), 8, "node", [8]),
        (seen(PULLING), 43, "image", [13, 30]),
        (seen(WAITING), 140, "ray", [13, 121, 6]),
        (seen(WARM), 165, "ray", [13, 121, 31]),
        (seen(WARM, replicas={"a": (ADDRESS, False)}), 172, "ray", [13, 121, 38]),
        (seen(WARM, reports={"a": StartReport(at(170.5), {}, "import", at(170.5))}), 180, "ray", [13, 121, 46]),
        (seen(WARM, reports={"a": FETCHING}), 192.75, "weights", [13, 121, 48.8, 10]),
    ],
    ids=["no node", "pull", "wait for the head", "no replica yet", "placed", "imports", "download"],
)  # fmt: skip
def test_what_runs_now(snapshot, now, running, seconds):
    found = one(snapshot, now)
    assert (found.running, list(found.seconds.values())) == (running, seconds)
    assert found.ready_at is None


@pytest.mark.parametrize(
    ("snapshot", "now"),
    [
        (seen(WARM, replicas={"b": ("10.244.1.8", True)}), 165),
        (seen(WARM), 160 + 601),
        (seen(WARM, replicas={"a": (ADDRESS, True)}), 300),
        (seen(WARM, reports={"a": replace(REPORT, began=at(160 + 601), since=at(900))}), 900),
        (seen({**WARM, "metadata": {**WARM["metadata"], "deletionTimestamp": stamp(200)}}), 165),
        (seen(pod(scheduled=1, phase="Failed")), 165),
    ],
    ids=["idle", "idle for long", "told nothing", "a later replica", "leaves", "ended"],
)
def test_a_worker_that_does_not_start_is_none(snapshot, now):
    assert cold_start.starts(snapshot, at(now)) == ()


def test_without_rays_word_a_worker_starts_until_its_pod_is_ready():
    found = cold_start.starts(observe(None, [WARM]), at(165))
    assert [each.running for each in found] == [Phase.RAY]
    ready = {"type": "Ready", "status": "True"}
    conditions = [*WARM["status"]["conditions"], ready]
    up = pod(scheduled=13, init=134, started=160, conditions=conditions)
    assert cold_start.starts(observe(None, [up]), at(170)) == ()


def test_clocks_that_differ_make_no_phase_negative():
    early = replace(REPORT, began=at(120), since=at(190))
    assert one(seen(WARM, reports={"a": early}), 300).seconds[Phase.RAY] == 0.0


def test_the_first_replica_of_a_worker_is_the_start():
    second = replace(REPORT, began=at(171), since=at(300))
    found = one(seen(WARM, reports={"b": second, "a": REPORT}, target=2), 400)
    assert found.ready_at == at(243)


def test_the_record_adds_up_and_reads_back():
    snapshot = seen(WARM, reports={"a": REPORT})
    record = cold_start.last(snapshot, None, at(250))
    assert (record.worker, record.ready_at) == ("imagine-x7k2p-gpu-worker-9fw4d", stamp(243))
    parts = [getattr(record, f"{phase}_seconds") for phase in Phase]
    assert sum(parts) == pytest.approx(record.total_seconds)
    assert record.warmup_seconds == 0
    assert cold_start.of_record(record) == one(snapshot, 250)


def test_a_start_is_news_once():
    snapshot = seen(WARM, reports={"a": REPORT})
    assert [each.worker for each in cold_start.news(snapshot, None, at(250))] == [WARM["metadata"]["name"]]
    record = cold_start.last(snapshot, None, at(250))
    assert cold_start.news(snapshot, record, at(900)) == []
    assert cold_start.last(snapshot, record, at(900)) == record
    again = seen(WARM, reports={"b": replace(REPORT, began=at(400), since=at(480))})
    assert cold_start.news(again, record, at(900)) == [], "its worker was there already"
    assert cold_start.last(again, record, at(900)) == record


def test_several_that_end_between_two_looks_are_all_news():
    """The last one to end is the one on record."""
    slow = pod("slow", scheduled=1, init=2, started=3, podIP="10.244.1.9")
    reports = {"a": REPORT, "b": replace(REPORT, began=at(100), since=at(500))}
    snapshot = seen(WARM, slow, reports=reports, replicas={"b": ("10.244.1.9", True)}, target=2)
    found = cold_start.news(snapshot, None, at(600))
    ends = [(each.worker, each.ready_at) for each in found]
    assert ends == [("imagine-x7k2p-gpu-worker-9fw4d", at(243)), ("slow", at(500))]
    record = cold_start.last(snapshot, None, at(600))
    assert record.worker == "slow"
    assert cold_start.news(snapshot, record, at(700)) == []


def test_the_record_outlives_its_worker():
    record = cold_start.last(seen(WARM, reports={"a": REPORT}), None, at(250))
    assert cold_start.last(seen(), record, at(900)) == record


def test_the_first_picture_is_added_to_its_start_alone():
    record = cold_start.last(seen(WARM, reports={"a": REPORT}), None, at(250))
    drew = seen(WARM, reports={"a": replace(REPORT, first_picture_seconds=3.456)})
    found = cold_start.last(drew, record, at(300))
    assert found == record.model_copy(update={"first_picture_seconds": 3.5})
    later = replace(REPORT, began=at(400), since=at(480), first_picture_seconds=1.0)
    other = seen(WARM, reports={"b": later})
    assert cold_start.last(other, record, at(900)) == record
