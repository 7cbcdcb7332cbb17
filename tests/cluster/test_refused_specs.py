# SPDX-License-Identifier: Apache-2.0
"""An edit is refused while an earlier spec is running: Ready continues to describe the running service."""

import json
import os
import subprocess
import sys
import time

import pytest

from sd_testkit.ray.pace import HOLD

STEPS = (
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/limits/properties/maxSteps/maximum"
)
CRD = "stablediffusionservices.sdservice.dev"


@pytest.fixture
def loosened_crd(kubectl):
    """The CRD as another release may have it: more steps are allowed than this operator takes."""

    def allow(steps):
        patch = json.dumps([{"op": "replace", "path": STEPS, "value": steps}])
        assert kubectl("patch", "crd", CRD, "--type=json", "-p", patch).returncode == 0

    allow(5000)
    yield
    allow(1000)


@pytest.fixture
def refused_by_our_parse(loosened_crd, service, kubectl, namespace):
    body = json.dumps(service(spec={"limits": {"maxSteps": 2000}}))
    # The API server takes a moment to serve the changed CRD.
    for _ in range(100):
        if kubectl("apply", "-n", namespace, "-f", "-", "--dry-run=server", stdin=body).returncode == 0:
            break
        time.sleep(0.3)
    return {"limits": {"maxSteps": 2000}}, "Invalid", "spec.limits.maxSteps: got 2000: "


@pytest.fixture
def refused_by_a_policy(forbid, enforced):
    """A policy of the namespace takes no such RayService."""
    forbid("ray.io", "rayservices", "!object.spec.serveConfigV2.contains('max_steps: 33')")
    pod = {"spec": {"containers": [{"name": "ray", "image": "example.org/ray:1"}]}}
    cluster = {"headGroupSpec": {"rayStartParams": {}, "template": pod}}
    spec = {"serveConfigV2": "max_steps: 33", "rayClusterConfig": cluster}
    enforced({"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "any"}, "spec": spec})
    return {"limits": {"maxSteps": 33}}, "Refused", "the API server refuses the RayService: "


@pytest.fixture
def annotate(kubectl, namespace):
    def send(annotation):
        arguments = ("rayservice", "imagine", "-n", namespace, annotation)
        assert kubectl("annotate", *arguments).returncode == 0

    return send


@pytest.fixture
def why(control_plane, namespace):
    """What `sdservice why` says."""

    def explain():
        command = [sys.executable, "-c", "from sd_operator.cli import main; main()", "why", "imagine"]
        environment = {**os.environ, "KUBECONFIG": str(control_plane.kubeconfig)}
        told = subprocess.run(
            [*command, "-n", namespace], env=environment, capture_output=True, text=True, timeout=120, check=True
        )  # fmt: skip
        return told.stdout

    return explain


@pytest.mark.parametrize("edit", ["refused_by_our_parse", "refused_by_a_policy"])
async def test_ready_follows_what_serves_while_an_edit_is_refused(
    serving,
    apply,
    service,
    get,
    eventually,
    condition,
    told,
    annotate,
    kubectl,
    namespace,
    why,
    request,
    edit,
):
    await serving()
    before = get("sdservice")["status"]
    generation = get("rayservice")["metadata"]["generation"]
    spec, reason, words = request.getfixturevalue(edit)

    apply(service(spec=spec))
    await eventually(lambda: condition("Accepted") == ("False", reason))
    assert condition("Ready") == ("True", "Serving")
    assert condition("ConfigApplied") == ("False", reason)
    status = get("sdservice")["status"]
    assert told("Accepted")[2].startswith(words)
    for field in ("url", "replicas", "workers", "model", "image", "rayService", "activeRayCluster"):
        assert status[field] == before[field], field
    assert get("rayservice")["metadata"]["generation"] == generation, "nothing of it is applied"
    explained = why()
    assert explained.startswith("✓ imagine")
    assert words in explained

    annotate(f"{HOLD}=head")
    heads = ("-l", "ray.io/node-type=head", "-n", namespace)
    assert kubectl("delete", "pods", *heads, "--wait=false").returncode == 0
    await eventually(lambda: condition("Ready") == ("False", "HeadNotReady"))
    assert condition("Accepted") == ("False", reason)
    assert why().startswith("✗ imagine")
    annotate(f"{HOLD}-")
    await eventually(lambda: condition("Ready") == ("True", "Serving"))
    assert condition("Accepted") == ("False", reason)

    apply(service())
    await eventually(lambda: condition("Accepted") == ("True", "Accepted"))
    await eventually(lambda: condition("ConfigApplied") == ("True", "ApplicationRunning"))
    assert condition("Ready") == ("True", "Serving")
