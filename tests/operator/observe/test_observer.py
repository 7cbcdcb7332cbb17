# SPDX-License-Identifier: Apache-2.0
"""The operator reads the children of an earlier spec while it refuses the current one, and computes the status from them."""

import asyncio
import base64
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sd_operator.bounded_http import Answer
from sd_operator.builders.preload import preload_daemon_sets
from sd_operator.builders.ray_service import ray_service
from sd_operator.cli.why import gather
from sd_operator.errors import KubeRayMissing, RayTooSlow, RayUnavailable, Refused
from sd_operator.kube import DAEMON_SET, GATEWAY, NODE, POD, RAY_CLUSTER, RAY_SERVICE, SECRET, SERVICE
from sd_operator.naming import Key
from sd_operator.observe.node_cache import NodeReader
from sd_operator.observe.observer import Observer
from sd_operator.observe.preload_reader import PreloadReader
from sd_operator.ray import readiness_probe
from sd_operator.ray.probe_poller import ProbePoller
from sd_operator.ray.serve_poller import ServePoller
from sd_operator.ray.serve_reader import Asks, ServeReader
from sd_operator.reconcile.reconciler import Reconciler
from sd_operator.settings import Settings

KEY = Key("team", "imagine")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FewObjects:
    """An API server with some objects; a kind may be answered with an error instead."""

    def __init__(self, objects, errors=None):
        self.objects, self.errors, self.written = objects, errors or {}, []

    async def get(self, kind, namespace, name):
        found = self._of(kind)
        return next((each for each in found if each["metadata"]["name"] == name), None)

    async def list(self, kind, namespace, labels=None, fields=None):
        return self._of(kind)

    async def pages(self, kind, namespace):
        yield self._of(kind)

    async def apply_status(self, body, manager):
        self.written.append(body["status"])

    async def create(self, body, manager):
        """Events."""

    async def get_through_service(self, *where, **bounds):
        raise RayUnavailable("no dashboard")

    def _of(self, kind):
        if kind in self.errors:
            raise self.errors[kind]
        return self.objects.get(kind, [])


def owned_by(uid, **body):
    owner = {"uid": uid, "controller": True}
    metadata = {"name": "imagine", "uid": "rs-1", "generation": 1, "ownerReferences": [owner]}
    return {"metadata": metadata, **body}


@pytest.fixture
def objects(resource):
    """A service that serves, and whose spec was broken since."""
    conditions = [{"type": "Ready", "status": "True"}]
    labels = {"ray.io/cluster": "imagine-a", "ray.io/is-ray-node": "yes"}
    pods = [
        {
            "metadata": {"name": f"imagine-a-{kind}", "uid": kind, "labels": labels | more},
            "status": {"phase": "Running", "conditions": conditions},
        }
        for kind, more in (
            ("head", {"ray.io/node-type": "head"}),
            ("worker", {"ray.io/node-type": "worker", "ray.io/group": "gpu"}),
        )
    ]
    running = {
        "observedGeneration": 1,
        "numServeEndpoints": 1,
        "activeServiceStatus": {
            "rayClusterName": "imagine-a",
            "applicationStatuses": {"imagine": {"status": "RUNNING"}},
        },
    }
    spec = ray_service(resource(), Settings())["spec"]
    metadata = {"name": "imagine", "namespace": "team", "uid": "uid-1", "generation": 9}
    return {
        SERVICE: [{"metadata": metadata, "spec": {"replicas": {"max": "many"}}}],
        RAY_SERVICE: [owned_by("uid-1", spec=spec, status=running)],
        RAY_CLUSTER: [{"metadata": {"name": "imagine-a"}, "spec": {}}],
        POD: pods,
    }


async def silent(place, seconds):
    raise RayUnavailable("no answer")


def observing(cluster, *clock):
    """An observer whose dashboards do not answer, which waits for that as `why` does."""
    nodes, probe = NodeReader(cluster), readiness_probe.through_api_server(cluster)
    preloads = PreloadReader(cluster, nodes)
    polls = ServePoller(ServeReader(Asks(silent, silent), *clock)), ProbePoller(probe, *clock)
    return Observer(cluster, *polls, nodes, preloads, waits=True)


@pytest.fixture
def told():
    """(status, reason) by condition after one pass, and what is looked at again when."""

    async def reconcile(objects, errors=None):
        cluster = FewObjects(objects, errors)
        observer = observing(cluster, lambda: NOW)
        again = await Reconciler(cluster, Settings(), observer, lambda: NOW).reconcile(KEY)
        (status,) = cluster.written
        assert status["observedGeneration"] == 9
        return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}, again

    return reconcile


async def test_what_serves_is_ready_beside_an_invalid_spec(objects, told):
    found, again = await told(objects)
    assert found["Accepted"] == found["ConfigApplied"] == ("False", "Invalid")
    assert found["Ready"] == ("True", "Serving")
    assert again is None


async def test_when_it_dies_it_is_not(objects, told):
    found, again = await told({**objects, POD: objects[POD][1:]})
    assert (found["Ready"], found["Accepted"]) == (("False", "HeadNotReady"), ("False", "Invalid"))
    assert again == 30


@pytest.mark.parametrize("theirs", [[], [owned_by("uid-of-another", spec={})]], ids=["none", "theirs"])
async def test_without_a_ray_service_of_ours_it_is_not(objects, told, theirs):
    found, _ = await told({**objects, RAY_SERVICE: theirs})
    assert found == {"Ready": ("False", "Invalid"), "Accepted": ("False", "Invalid")}


async def test_with_kuberays_kinds_gone_it_is_not(objects, told):
    found, _ = await told(objects, {RAY_SERVICE: KubeRayMissing("gone")})
    assert found == {"Ready": ("False", "Invalid"), "Accepted": ("False", "Invalid")}


@pytest.mark.parametrize("kind", [RAY_SERVICE, POD, DAEMON_SET], ids=lambda kind: kind.name)
async def test_what_may_not_be_read_is_unknown(objects, told, kind):
    found, again = await told(objects, {kind: Refused("may not")})
    assert (found["Ready"], found["Accepted"]) == (("Unknown", "Refused"), ("False", "Invalid"))
    assert again == 30


@pytest.mark.parametrize(
    ("secrets", "errors", "token"),
    [
        ([], {}, ""),
        ([("uid-1", "ours")], {}, "ours"),
        ([("uid-of-another", "theirs")], {}, ""),
        ([], {SECRET: Refused("may not")}, ""),
    ],
    ids=["none", "ours", "theirs", "forbidden"],
)
async def test_only_our_own_token_is_used(secrets, errors, token):
    live = [
        owned_by(uid, data={"auth_token": base64.b64encode(text.encode()).decode()}) for uid, text in secrets
    ]
    for each in live:
        each["metadata"]["name"] = "imagine-ray-token"
    cluster = FewObjects({SECRET: live}, errors)
    observer = observing(cluster)
    assert await observer.token(KEY, "uid-1") == token


@pytest.fixture
def url(objects, resource):
    """`status.url` of a service, beside these Gateways."""

    async def reconcile(gateways, errors=None, **upgrade):
        spec = ray_service(resource(upgrade=upgrade), Settings())["spec"]
        (live,) = objects[RAY_SERVICE]
        live = {**live, "spec": spec, "metadata": live["metadata"] | {"uid": "uid-2"}}
        cluster = FewObjects({**objects, RAY_SERVICE: [live], GATEWAY: gateways}, errors)
        observer = observing(cluster, lambda: NOW)
        await Reconciler(cluster, Settings(), observer, lambda: NOW).reconcile(KEY)
        return cluster.written[0]["url"]

    return reconcile


def gateway(uid):
    body = owned_by(uid, spec={"listeners": [{"port": 80}]}, status={"addresses": [{"value": "192.0.2.7"}]})
    body["metadata"]["name"] = "imagine-gateway"
    return body


STEPS = {"strategy": "Incremental", "incremental": {"gatewayClassName": "istio"}}
SERVICE_URL = "http://imagine-serve-svc.team.svc:8000"


async def test_requests_that_move_in_steps_go_to_the_gateway(url):
    assert await url([gateway("uid-2")], **STEPS) == "http://192.0.2.7"


@pytest.mark.parametrize(
    ("gateways", "errors", "upgrade"),
    [
        ([], {}, STEPS),
        ([gateway("uid-of-another")], {}, STEPS),
        ([], {GATEWAY: Refused("no such kind")}, STEPS),
        ([gateway("uid-2")], {}, {}),
    ],
    ids=["none", "theirs", "no kind or no permission", "another strategy"],
)
async def test_else_they_go_to_the_service(url, gateways, errors, upgrade):
    assert await url(gateways, errors, **upgrade) == SERVICE_URL


@pytest.fixture
def held(objects, service, resource):
    """A change of the image that waited when the operator last looked; and what its preload pod does now."""

    def build(state):
        spec = {"image": {"repository": "r/i", "tag": "2"}, "imagePreload": {"mode": "Required"}}
        live = service(metadata=objects[SERVICE][0]["metadata"], spec=spec)
        waiting = {
            "type": "ConfigApplied",
            "status": "False",
            "reason": "WaitingForImages",
            "message": "",
            "lastTransitionTime": "2026-01-02T03:00:00Z",
            "observedGeneration": 9,
        }
        images = [{"image": "r/i:2"}]
        preload = {"waitingSince": "2026-01-02T03:00:00Z", "images": images}
        live["status"] = {"observedGeneration": 9, "conditions": [waiting], "preload": preload}
        wanted = resource(**spec)
        (daemon_set,) = preload_daemon_sets(wanted, Settings())
        daemon_set["metadata"]["uid"] = "uid-d"
        daemon_set["status"] = {"observedGeneration": 1, "desiredNumberScheduled": 1}
        template = daemon_set["spec"]["template"]
        pod = {
            "metadata": {"name": "p", "labels": template["metadata"]["labels"]},
            "spec": {**template["spec"], "nodeName": "gpu-0"},
            "status": {"containerStatuses": [{"name": "preload", "image": "r/i:2", "state": state}]},
        }
        return live, {**objects, SERVICE: [live], DAEMON_SET: [daemon_set], POD: [*objects[POD], pod]}

    return build


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            {"waiting": {"reason": "ErrImagePull", "message": "denied"}},
            {"ImagesPreloaded": "ImagePullFailed", "ConfigApplied": "WaitingForImages"},
        ),
        (
            {"running": {"startedAt": "2026-01-02T03:04:00Z"}},
            {"ImagesPreloaded": "ImagesPresent", "ConfigApplied": "ApplicationRunning"},
        ),
    ],
    ids=["waits still", "is there"],
)
async def test_why_tells_a_change_that_waits_for_its_image(held, state, told):
    live, objects = held(state)
    explanation = await gather(FewObjects(objects), live, NOW)
    rows = {row.cells[0]: row.cells[2] for row in explanation.conditions}
    assert {kind: rows[kind] for kind in told} == told
    assert rows["Ready"] == "Serving"


KIND = {"apiVersion": "sdservice.dev/v1alpha1", "kind": "StableDiffusionService"}


@pytest.mark.parametrize(
    ("most", "told"),
    [
        (2, ("Unknown", "ImagesUnseen")),
        (50, ("False", "ImageNotPreloaded")),
        (-1, ("False", "ImageNotPreloaded")),
    ],
    ids=["the list is full", "the list has room", "the list is whole"],
)
async def test_why_knows_how_many_images_a_kubelet_lists(objects, resource, most, told):
    """An image that is missing on a full list may be there all the same."""
    wanted = resource(imagePreload={"mode": "External"}, gpusPerReplica=0)
    (live,) = objects[SERVICE]
    spec = wanted.spec.model_dump(by_alias=True, mode="json", exclude_none=True)
    live = {**KIND, **live, "spec": spec, "status": {"image": "r/i:1"}}
    ray = {**objects[RAY_SERVICE][0], "spec": ray_service(wanted, Settings())["spec"]}
    node = {
        "metadata": {"name": "gpu-0", "labels": {}},
        "spec": {},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "images": [{"names": ["a:1"]}, {"names": ["b:1"]}],
        },
    }
    cluster = FewObjects({**objects, SERVICE: [live], RAY_SERVICE: [ray], NODE: [node]})
    explanation = await gather(cluster, live, NOW, most)
    (row,) = (each for each in explanation.conditions if each.cells[0] == "ImagesPreloaded")
    assert row.cells[1:3] == told


class Serves(FewObjects):
    """One whose Services lead to replicas that answer as told."""

    def __init__(self, objects, ready):
        super().__init__(objects)
        self.ready, self.asked = ready, []

    async def get_through_service(self, namespace, service, path, headers, **bounds):
        self.asked.append((namespace, service, path))
        if isinstance(self.ready, Exception):
            raise self.ready
        return Answer(self.ready, b"")


@pytest.fixture
def ready(objects):
    """Ready after one pass over what is left without a head, and what was asked for."""

    async def reconcile(answer, ray_service_spec=None):
        (live,) = objects[RAY_SERVICE]
        live = {**live, "spec": ray_service_spec or live["spec"]}
        cluster = Serves({**objects, RAY_SERVICE: [live], POD: objects[POD][1:]}, answer)
        observer = observing(cluster, lambda: NOW)
        await Reconciler(cluster, Settings(), observer, lambda: NOW).reconcile(KEY)
        found = cluster.written[0]["conditions"][0]
        return (found["status"], found["reason"]), cluster.asked

    return reconcile


async def test_a_service_without_a_head_is_asked_itself(ready):
    asked = [("team", "imagine-serve-svc:serve", "/readyz")]
    assert await ready(200) == (("True", "Degraded"), asked)


@pytest.mark.parametrize(
    "answer", [503, 302, RayUnavailable("cut off"), RayTooSlow("5 s"), TimeoutError()], ids=repr
)
async def test_without_a_yes_of_the_service_it_is_not_ready(ready, answer):
    found, asked = await ready(answer)
    assert found == ("False", "HeadNotReady")
    assert asked


async def test_while_requests_move_in_steps_each_cluster_has_a_service(ready, resource):
    steps = ray_service(resource(upgrade=STEPS), Settings())["spec"]
    assert (await ready(200, steps))[1] == [("team", "imagine-a-serve-svc:serve", "/readyz")]


async def test_a_service_whose_head_is_there_is_not_asked(objects):
    cluster = Serves(objects, 200)
    await Reconciler(cluster, Settings(), observing(cluster), lambda: NOW).reconcile(KEY)
    assert cluster.asked == []


async def never(place, seconds):
    await asyncio.Event().wait()


async def test_no_pass_waits_for_a_pod(objects):
    """Neither for a dashboard nor for a service: with both silent, a pass is over at once."""

    class Silent(FewObjects):
        async def get_through_service(self, *where, **bounds):
            await asyncio.Event().wait()

    for pods in (objects[POD], objects[POD][1:]):
        cluster = Silent({**objects, POD: pods})
        observer = observing(cluster, lambda: NOW)
        polls = ServePoller(ServeReader(Asks(never, never), lambda: NOW)), observer.probes
        observer = replace(observer, serve=polls[0], waits=False)
        running = [
            asyncio.create_task(polls[0].run(lambda _: None, lambda _: None)),
            asyncio.create_task(polls[1].run(lambda _: None)),
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(0.5):
            for _ in range(3):
                await Reconciler(cluster, Settings(), observer, lambda: NOW).reconcile(KEY)
        for task in running:
            assert not task.done()
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert cluster.written
