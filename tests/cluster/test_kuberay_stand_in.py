# SPDX-License-Identifier: Apache-2.0
"""The stand-in for KubeRay does what a real KubeRay 1.7.0 was recorded doing."""

import json

import pytest

from sd_operator.api import parse
from sd_operator.builders.ray_service import ray_service
from sd_operator.settings import Settings


def state(generation, status):
    """What counts of a RayService status; names, times and counts above one endpoint do not."""
    conditions = {each["type"]: (each["status"], each["reason"]) for each in status.get("conditions", [])}

    def side(role):
        found = status.get(f"{role}ServiceStatus") or {}
        application = (found.get("applicationStatuses") or {}).get("imagine", {}).get("status")
        return bool(found.get("rayClusterName")), application

    return (
        conditions.get("Ready"),
        conditions.get("UpgradeInProgress"),
        conditions.get("Suspended"),
        side("active"),
        side("pending"),
        bool(status.get("numServeEndpoints")),
        generation == status.get("observedGeneration"),
    )


@pytest.fixture(scope="module")
def recorded(request):
    """States per recorded step, each different from the one before."""
    path = request.config.rootpath.parent / "shared/kuberay-traces/kuberay-1.7.0.jsonl"
    if not path.exists():
        pytest.skip("the recording of a real KubeRay is not beside this checkout")
    steps, step = {}, None
    for entry in map(json.loads, path.read_text().splitlines()):
        if "step" in entry:
            step = steps.setdefault(entry["step"].split(":")[0], [])
        elif entry["object"].startswith("RayService/") and not entry.get("gone"):
            found = state(entry["generation"], entry.get("status") or {})
            if not step or step[-1] != found:
                step.append(found)
    return steps


@pytest.fixture
def rays(kubectl, namespace, service):
    """A RayService as the operator renders it, applied with changes to its spec."""
    seen = []

    def apply(change=lambda spec: None):
        body = ray_service(parse(service(metadata={"namespace": namespace})), Settings())
        body["spec"]["rayClusterDeletionDelaySeconds"] = 1
        body["spec"]["excludeHeadPodFromServeSvc"] = False
        change(body["spec"])
        sent = kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(body))
        assert sent.returncode == 0, sent.stderr

    def look():
        live = json.loads(kubectl("get", "rayservice", "imagine", "-n", namespace, "-o", "json").stdout)
        found = state(live["metadata"]["generation"], live.get("status") or {})
        if not seen or seen[-1] != found:
            seen.append(found)
        return found

    def clusters():
        listed = kubectl("get", "raycluster", "-n", namespace, "-o", "json").stdout
        return [each["metadata"]["name"] for each in json.loads(listed)["items"]]

    return apply, look, clusters, seen


def environment(spec):
    for group in (spec["rayClusterConfig"]["headGroupSpec"], *spec["rayClusterConfig"]["workerGroupSpecs"]):
        group["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]


def nothing(_):
    """The RayService as it was."""


STEPS = (
    ("create", nothing, None),
    ("serveConfigV2 only", lambda spec: spec.update(serveConfigV2=spec["serveConfigV2"] + "# more\n"), "same"),
    ("worker maxReplicas -> 4", lambda spec: spec["rayClusterConfig"]["workerGroupSpecs"][0].update(maxReplicas=4), "same"),
    ("env change", environment, "other"),
    ("bad import path in serveConfigV2", lambda spec: (environment(spec), spec.update(serveConfigV2=spec["serveConfigV2"].replace("sd_runtime.app", "nope.app"))), "same"),
    ("import path mended", environment, "same"),
    ("invalid", lambda spec: (environment(spec), spec["rayClusterConfig"]["headGroupSpec"].update(headService={"metadata": {"name": "x"}})), "same"),
    ("mended", environment, "same"),
    ("suspend", lambda spec: (environment(spec), spec.update(suspend=True)), None),
    ("resume", environment, "other"),
)  # fmt: skip


def is_subsequence(states, recording):
    remaining = iter(recording)
    return all(any(found == other for other in remaining) for found in states)


async def test_stand_in_goes_through_the_recorded_states(kuberay, rays, recorded, eventually):
    apply, look, clusters, seen = rays
    before = []
    for name, change, cluster in STEPS:
        seen.clear()
        apply(change)
        end = recorded[name][-1]
        if name in {"invalid", "mended"}:
            # In the recording the head had been deleted a step earlier; here it is there.
            end = (*end[:3], (True, "RUNNING"), *end[4:])
        await eventually(lambda end=end: look() == end)
        if name not in {"invalid", "mended"}:
            # The state before KubeRay first looks may or may not be sampled.
            after_first_look = [found for found in seen if found[-1]]
            assert is_subsequence(after_first_look, recorded[name]), (name, after_first_look, recorded[name])
        if cluster == "same":
            assert clusters() == before, name
        elif cluster == "other":
            await eventually(lambda: len(clusters()) == 1)
            assert clusters() != before, name
        before = clusters()


async def test_muted_fields_do_not_reach_the_live_cluster(kuberay, rays, kubectl, namespace, eventually):
    apply, look, clusters, _ = rays
    apply()
    await eventually(lambda: look()[0] == ("True", "NonZeroServeEndpoints"))
    apply(lambda spec: spec["rayClusterConfig"]["workerGroupSpecs"][0].update(maxReplicas=9))
    await eventually(lambda: look()[-1])
    (name,) = clusters()
    live = json.loads(kubectl("get", "raycluster", name, "-n", namespace, "-o", "json").stdout)
    assert live["spec"]["workerGroupSpecs"][0]["maxReplicas"] == 1


async def test_refusal_names_the_field_in_an_event(kuberay, rays, kubectl, namespace, eventually):
    apply, look, _, _ = rays
    apply(
        lambda spec: spec["rayClusterConfig"]["headGroupSpec"].update(headService={"metadata": {"name": "x"}})
    )
    await eventually(lambda: look()[0] == ("False", "ValidationFailed"))

    def told():
        listed = kubectl("get", "events", "-n", namespace, "-o", "json").stdout
        return any(
            item["reason"] == "InvalidRayServiceSpec" and "headService.metadata.name" in item["message"]
            for item in json.loads(listed)["items"]
        )

    await eventually(told)
