# SPDX-License-Identifier: Apache-2.0
"""Recordings of a real KubeRay, as `sd_testkit.truth.recording` reads them."""

from sd_testkit.truth.recording import GONE, from_trace


def test_the_pod_of_a_deleted_head_stays_ready_for_long(root):
    """Its autoscaler outlives Ray in it; KubeRay makes no other head before the pod is gone."""
    trace = root / "tests/data/kuberay-1.7.0-head-deleted.jsonl"
    streams = from_trace(trace, "head pod deleted").steps["head pod deleted"]
    former, latter = streams["head pod 1.1"], streams["head pod 1.2"]
    assert former[0] == "Running, ready, serve=false, deleting"
    assert former[-2:] == ["Failed, not ready, serve=false, deleting", GONE]
    assert latter[0] == "Pending, not ready, serve=false"
    events = streams["events"]
    assert events.index("RayCluster Normal DeletedHeadPod") < events.index("RayCluster Normal CreatedHeadPod")
