# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from sd_operator.observe.snapshot import Application, PodView, observe


def ray_service(**status):
    return {"metadata": {"generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status}


def view(**status):
    return observe(ray_service(**status), []).ray_service


def test_new_ray_service_has_nothing_to_tell():
    found = view()
    assert (found.up_to_date, found.active, found.endpoints) == (False, "", 0)
    assert found.since == "2026-01-01T00:00:00Z"


def test_application_message_names_the_deployment():
    deployments = {
        "model": {"status": "UNHEALTHY", "message": "out of memory"},
        "ingress": {"status": "HEALTHY"},
    }
    application = {"status": "DEPLOYING", "message": "", "serveDeploymentStatuses": deployments}
    found = view(
        pendingServiceStatus={"rayClusterName": "a", "applicationStatuses": {"imagine": application}}
    )
    assert found.application == Application("DEPLOYING", "model: out of memory")


def test_validation_failure_is_kuberays_word():
    condition = {"type": "Ready", "status": "False", "reason": "ValidationFailed", "message": "no"}
    assert view(conditions=[condition]).refused == "no"


@pytest.mark.parametrize(
    ("condition", "taken_up", "refused"),
    [(0, 0, "no"), (5, 5, "no"), (0, 2, ""), (5, 7, ""), (None, 2, "")],
    ids=[
        "a first creation",
        "an edit, or a KubeRay that has become stricter",
        "a first creation that was repaired",
        "an edit that was repaired",
        "zero is left out by Go",
    ],
)
def test_a_refusal_of_a_spec_that_was_repaired_since_is_over(condition, taken_up, refused):
    """KubeRay leaves the reason as it is until the repaired service has endpoints."""
    told = {"type": "Ready", "status": "False", "reason": "ValidationFailed", "message": "no"}
    if condition is not None:
        told["observedGeneration"] = condition
    assert view(conditions=[told], observedGeneration=taken_up).refused == refused


def test_pods():
    def pod(ready, **labels):
        conditions = [{"type": "Ready", "status": ready}]
        metadata = {"name": "p", "uid": "u", "labels": labels}
        return {"metadata": metadata, "status": {"phase": "Running", "conditions": conditions}}

    labels = {"ray.io/cluster": "c", "ray.io/group": "g", "ray.io/node-type": "worker"}
    labels["ray.io/is-ray-node"] = "yes"
    leaving = pod("True", **labels)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = observe(None, [pod("True", **labels), pod("False", **labels), leaving]).pods
    assert found == (
        PodView("c", "g", is_head=False, ready=True, name="p", uid="u", in_service=True),
        PodView("c", "g", is_head=False, ready=False, name="p", uid="u", in_service=True),
        PodView("c", "g", is_head=False, ready=False, name="p", uid="u", in_service=True, running=False),
    )


def test_head_that_is_deleted_runs_until_its_grace_is_over():
    labels = {"ray.io/is-ray-node": "yes", "ray.io/cluster": "c", "ray.io/node-type": "head"}
    metadata = {"name": "p", "uid": "u", "labels": labels, "deletionTimestamp": "2026-01-01T00:00:00Z"}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    (found,) = observe(None, [{"metadata": metadata, "status": status}]).pods
    assert (found.running, found.ready) == (True, False)
    (ended,) = observe(None, [{"metadata": metadata, "status": {"phase": "Failed"}}]).pods
    assert not ended.running


def test_every_recorded_status_can_be_read(root):
    """KubeRay's own words, where the recording is at hand."""
    recording = root.parent / "shared/kuberay-traces/kuberay-1.7.0.jsonl"
    if not recording.exists():
        pytest.skip("the recording of a real KubeRay is not beside this checkout")
    seen = set()
    for line in recording.read_text().splitlines():
        entry = json.loads(line)
        if entry.get("object", "").startswith("RayService/") and entry.get("status") is not None:
            metadata = {"generation": entry["generation"], "creationTimestamp": "2026-01-01T00:00:00Z"}
            found = observe({"metadata": metadata, "status": entry["status"]}, []).ray_service
            seen |= {
                found.application.status,
                "refused" if found.refused else "",
                found.suspended,
                found.upgrading,
            }
    assert {"RUNNING", "DEPLOYING", "DEPLOY_FAILED", "refused", True, False} <= seen
