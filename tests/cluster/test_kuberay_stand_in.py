# SPDX-License-Identifier: Apache-2.0
"""Behaviour of the stand-in that the recording of a real KubeRay does not show: fields it ignores, and Ray behind its ports."""

import base64
import json

import pytest

from sd_operator.api import parse
from sd_operator.builders.ray_service import ray_service
from sd_operator.settings import Settings

TOKEN = "a-token"


@pytest.fixture
def rays(kubectl, namespace, service):
    """A RayService as the operator renders it, applied with changes to its spec, and what became of it."""

    def apply(change=lambda spec: None, **spec):
        body = ray_service(parse(service(metadata={"namespace": namespace}, spec=spec)), Settings())
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "imagine-ray-token", "namespace": namespace},
            "data": {"auth_token": base64.b64encode(TOKEN.encode()).decode()},
        }
        change(body["spec"])
        for each in (secret, body):
            sent = kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(each))
            assert sent.returncode == 0, sent.stderr

    def look(kind="rayservice"):
        listed = kubectl("get", kind, "-n", namespace, "-o", "json").stdout
        return json.loads(listed)["items"]

    return apply, look


def ready(rays):
    _, look = rays
    (live,) = look()
    conditions = {each["type"]: (each["status"], each["reason"]) for each in live["status"]["conditions"]}
    return conditions["Ready"]


async def test_muted_fields_do_not_reach_the_live_cluster(kuberay, rays, eventually):
    apply, look = rays
    apply()
    await eventually(lambda: ready(rays) == ("True", "NonZeroServeEndpoints"))
    (before,) = look("raycluster")
    apply(lambda spec: spec["rayClusterConfig"]["workerGroupSpecs"][0].update(maxReplicas=9))
    await eventually(lambda: look()[0]["status"]["observedGeneration"] == look()[0]["metadata"]["generation"])
    (cluster,) = look("raycluster")
    then, now = (each["spec"]["workerGroupSpecs"][0]["maxReplicas"] for each in (before, cluster))
    assert then == now != 9


async def test_group_that_is_appended_is_added_to_the_live_cluster(kuberay, rays, eventually):
    apply, look = rays
    apply(workerGroups=[{"name": "a"}])
    await eventually(lambda: ready(rays) == ("True", "NonZeroServeEndpoints"))
    apply(workerGroups=[{"name": "a"}, {"name": "b"}])
    await eventually(lambda: len(look("raycluster")[0]["spec"]["workerGroupSpecs"]) == 2)
    assert len(look("raycluster")) == 1


async def test_refusal_names_the_field_in_an_event(kuberay, rays, eventually):
    apply, look = rays
    name = {"metadata": {"name": "x"}}
    apply(lambda spec: spec["rayClusterConfig"]["headGroupSpec"].update(headService=name))
    await eventually(lambda: ready(rays) == ("False", "ValidationFailed"))

    def told():
        events = [each for each in look("events") if each["reason"] == "InvalidRayServiceSpec"]
        return any("headService.metadata.name" in each["message"] for each in events)

    await eventually(told)


async def test_dashboard_answers_through_the_api_server_to_the_token_only(
    kuberay, rays, through_service, eventually
):
    apply, _ = rays
    apply()
    await eventually(lambda: ready(rays) == ("True", "NonZeroServeEndpoints"))
    path = "/api/serve/applications/"
    status, _ = await through_service("GET", "imagine-head-svc:dashboard", path)
    assert status == 401
    status, body = await through_service(
        "GET", "imagine-head-svc:dashboard", path, **{"X-Ray-Authorization": f"Bearer {TOKEN}"}
    )
    application = json.loads(body)["applications"]["imagine"]
    assert (status, application["status"]) == (200, "RUNNING")
    assert {each["status"] for each in application["deployments"].values()} == {"HEALTHY"}


async def test_the_pod_of_a_deleted_head_is_ready_after_ray_in_it_has_ended(
    kuberay, rays, through_service, kubectl, namespace, eventually
):
    """As recorded: tests/data/kuberay-1.7.0-head-deleted.jsonl."""
    apply, look = rays
    apply()
    await eventually(lambda: ready(rays) == ("True", "NonZeroServeEndpoints"))

    def heads():
        pods = [each for each in look("pods") if each["metadata"]["labels"]["ray.io/node-type"] == "head"]
        return {each["metadata"]["name"]: each["status"].get("phase") for each in pods}

    (former,) = heads()
    assert kubectl("delete", "pod", former, "-n", namespace, "--wait=false").returncode == 0
    statuses = set()
    while heads().get(former) == "Running":
        status, _ = await through_service("GET", "imagine-head-svc:dashboard", "/api/version")
        statuses.add(status)
    assert statuses - {200, 401}, statuses
    await eventually(lambda: heads().keys() - {former})


async def test_request_at_zero_is_held_until_a_worker_has_started(kuberay, rays, through_service, eventually):
    apply, look = rays
    apply(replicas={"min": 0, "max": 2}, autoscaling={"downscaleDelaySeconds": 1, "idleWorkerSeconds": 1})
    await eventually(lambda: ready(rays) == ("True", "NonZeroServeEndpoints"))

    def workers():
        return [each for each in look("pods") if each["metadata"]["labels"]["ray.io/node-type"] == "worker"]

    assert workers() == []
    status, body = await through_service("GET", "imagine-serve-svc:serve", "/imagine")
    assert (status, body[:4]) == (200, b"\x89PNG")
    assert len(workers()) == 1
    await eventually(lambda: workers() == [])
