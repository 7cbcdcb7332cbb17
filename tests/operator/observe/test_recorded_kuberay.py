# SPDX-License-Identifier: Apache-2.0
"""A recording of a real KubeRay 1.7.0, replayed through observe and status: the operator's `Ready` beside KubeRay's."""

import json
from datetime import UTC, datetime

import pytest

from sd_operator import status
from sd_operator.api import Status
from sd_operator.observe.snapshot import observe

NOW = datetime(2026, 11, 23, 19, 0, tzinfo=UTC)


def ray_service(entry):
    metadata = {"generation": entry["generation"], "creationTimestamp": "2026-11-23T17:55:00Z"}
    return {"metadata": metadata, "status": entry["status"]}


def pod(entry):
    metadata = {"name": entry["object"].partition("/")[2], "uid": "u", "labels": entry["labels"]}
    if entry["deleting"]:
        metadata["deletionTimestamp"] = "2026-11-23T18:00:00Z"
    conditions = [{"type": "Ready", "status": entry["ready"] or "False"}]
    return {"metadata": metadata, "status": {"phase": entry["phase"], "conditions": conditions}}


@pytest.fixture(scope="module")
def recording(request):
    """(seconds, step, RayService, pods) after each sample that changed one of them."""
    path = request.config.rootpath.parent / "shared/kuberay-traces/kuberay-1.7.0.jsonl"
    if not path.exists():
        pytest.skip("the recording of a real KubeRay is not beside this checkout")
    frames, step, live, pods = [], "", None, {}
    for entry in map(json.loads, path.read_text().splitlines()):
        step = entry.get("step", step).split(":")[0]
        kind, _, name = entry.get("object", "").partition("/")
        if kind == "Pod":
            pods.pop(name, None)
            if not entry.get("gone"):
                pods[name] = pod(entry)
        elif kind == "RayService":
            live = None if entry.get("gone") or entry["status"] is None else ray_service(entry)
        else:
            continue
        frames.append((entry["t"], step, live, list(pods.values())))
    return frames


@pytest.fixture
def replayed(recording, resource):
    """(seconds, step, our Ready condition, KubeRay's own status of it), for each frame with a RayService."""
    spec = resource(replicas={"min": 1, "max": 2})
    previous, found = Status(), []
    for seconds, step, live, pods in recording:
        if live is None:
            continue
        previous = status.compute(spec, observe(live, pods), "image:1", previous, NOW)
        ours = previous.conditions[0]
        theirs = next(each for each in live["status"]["conditions"] if each["type"] == "Ready")["status"]
        found.append((seconds, step, ours, theirs))
    return found


def between(replayed, first, last):
    return [(ours, theirs) for seconds, _, ours, theirs in replayed if first <= seconds < last]


def test_not_ready_while_the_application_cannot_be_imported(replayed):
    """From the moment KubeRay tells of it until the mended one runs."""
    frames = between(replayed, 187.5, 214.8)
    assert {theirs for _, theirs in frames} == {"True"}, "KubeRay's own stays"
    assert {ours.status for ours, _ in frames} == {"False"}
    failed = [ours for ours, _ in frames if ours.reason == "ApplicationFailed"]
    assert failed
    assert failed[0].message.endswith("ModuleNotFoundError: No module named 'nosuchapp'")


def test_not_ready_while_the_head_is_gone(replayed):
    """From its deletion on; it was not serving again when the recording went on to suspend."""
    frames = between(replayed, 235.0, 294.5)
    assert "True" in {theirs for _, theirs in frames}, "KubeRay's own stays"
    assert {ours.status for ours, _ in frames} == {"False"}
    assert frames[0][0].reason == "HeadNotReady"


def test_ready_through_changes_in_place_and_through_a_new_cluster(replayed):
    (first,) = [seconds for seconds, step, ours, _ in replayed if step == "create" and ours.status == "True"][
        :1
    ]
    assert {ours.status for ours, _ in between(replayed, first, 187.5)} == {"True"}


def test_not_ready_while_starting_suspended_and_resuming(replayed):
    ready = {}
    for _, step, ours, _ in replayed:
        ready.setdefault(step, []).append(ours.status)
    assert ready["suspend"] == ["False"] * len(ready["suspend"])
    for step in ("create", "resume"):
        assert ready[step] == sorted(ready[step]), f"{step}: False until it serves, then True"
        assert ready[step][-1] == "True"
