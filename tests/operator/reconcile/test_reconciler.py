# SPDX-License-Identifier: Apache-2.0
"""One pass with a refusal or failure in the middle: all independent steps are done, and the status reports the failure."""

import copy
from datetime import UTC, datetime

import pytest

from sd_operator.errors import ClusterUnavailable, RayUnavailable, Refused
from sd_operator.kube import SERVICE
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
IMAGE = {"repository": "r/i", "tag": "1"}


class Api:
    """An API server that keeps what is applied; kinds may be refused or fail."""

    def __init__(self, service):
        self.objects = {(SERVICE.name, "imagine"): service}
        self.errors, self.events, self.version = {}, [], 0

    async def get(self, kind, namespace, name):
        return copy.deepcopy(self.objects.get((kind.name, name)))

    async def list(self, kind, namespace, labels=None, fields=None):
        return [
            copy.deepcopy(body)
            for (found, _), body in self.objects.items()
            if found == kind.name and (labels or {}).items() <= (body["metadata"].get("labels") or {}).items()
        ]

    async def pages(self, kind, namespace):
        yield await self.list(kind, namespace)

    async def apply(self, body, manager):
        kind, name = body["kind"], body["metadata"]["name"]
        if kind in self.errors:
            raise self.errors[kind]
        before = self.objects.get((kind, name), {}).get("metadata", {}).get("resourceVersion")
        metadata = {**body["metadata"], "uid": f"uid-{name}", "resourceVersion": before}
        if self.objects.get((kind, name)) != {**body, "metadata": metadata}:
            self.version += 1
            metadata["resourceVersion"] = str(self.version)
        self.objects[kind, name] = {**body, "metadata": metadata}
        return copy.deepcopy(self.objects[kind, name])

    async def apply_status(self, body, manager):
        if "status" in self.errors:
            raise self.errors["status"]
        self.objects[SERVICE.name, "imagine"]["status"] = body["status"]

    async def create(self, body, manager):
        if body["kind"] == "Event":
            if "Event" in self.errors:
                raise self.errors["Event"]
            self.events.append((body["reason"], body["note"]))
            return body
        self.objects[body["kind"], body["metadata"]["name"]] = body
        return body

    async def get_through_service(self, *where):
        raise Refused("no dashboard")


async def silent(place):
    raise RayUnavailable("no answer")


@pytest.fixture
def api(service):
    identity = {"namespace": "team", "uid": "uid-1", "generation": 1}

    def build(**spec):
        return Api(service(metadata=identity, spec={"image": IMAGE, **spec}))

    return build


@pytest.fixture
def reconciler():
    def build(cluster):
        nodes, probe = NodeReader(cluster), readiness_probe.through_api_server(cluster)
        preloads = PreloadReader(cluster, nodes, clock=lambda: NOW)
        serve = ServePoller(ServeReader(Asks(silent, silent), lambda: NOW))
        observer = Observer(cluster, serve, ProbePoller(probe), nodes, preloads)
        return Reconciler(cluster, Settings(), observer, lambda: NOW)

    return build


def told(api, kind):
    conditions = api.objects[SERVICE.name, "imagine"]["status"]["conditions"]
    return next(
        (each["status"], each["reason"], each["message"]) for each in conditions if each["type"] == kind
    )


def kinds(api):
    return {kind for kind, _ in api.objects} - {SERVICE.name, "Secret"}


NO = Refused("the API server refuses the DaemonSet: no DaemonSets here")


async def test_a_refused_daemon_set_keeps_no_ray_service_from_coming(api, reconciler):
    cluster = api()
    cluster.errors["DaemonSet"] = NO
    again = await reconciler(cluster).reconcile(KEY)
    assert kinds(cluster) == {"NetworkPolicy", "RayService"}
    status, reason, message = told(cluster, "ImagesPreloaded")
    assert (status, reason) == ("False", "Refused")
    assert message.endswith(": the API server refuses the DaemonSet: no DaemonSets here")
    assert told(cluster, "Accepted")[0] == "True"
    assert again == 30, "it is tried again"


async def test_with_required_it_waits_and_says_so(api, reconciler):
    cluster = api(imagePreload={"mode": "Required"})
    cluster.errors["DaemonSet"] = NO
    pass_ = reconciler(cluster)
    await pass_.reconcile(KEY)
    assert kinds(cluster) == {"NetworkPolicy"}
    assert told(cluster, "Ready")[:2] == ("False", "WaitingForImages")
    message = told(cluster, "ImagesPreloaded")[2]
    assert "no DaemonSets here. The change stays on hold until the image is on all matching nodes" in message
    preload = cluster.objects[SERVICE.name, "imagine"]["status"]["preload"]
    assert (preload["waitingSince"], [each["image"] for each in preload["images"]]) == (
        "2026-01-02T03:04:05Z",
        ["r/i:1"],
    )


async def test_refused_placeholders_are_told_with_the_places(api, reconciler):
    cluster = api(imagePreload={"mode": "Disabled", "warmNodes": 2})
    cluster.errors["Deployment"] = Refused("no Deployments here")
    await reconciler(cluster).reconcile(KEY)
    assert kinds(cluster) == {"NetworkPolicy", "RayService"}
    warm = cluster.objects[SERVICE.name, "imagine"]["status"]["warmNodes"]
    assert (warm["summary"], warm["message"]) == ("0/2", "Deployment imagine-warm: no Deployments here")


async def test_what_closes_the_pods_comes_before_them(api, reconciler):
    cluster = api()
    cluster.errors["NetworkPolicy"] = Refused("no policies here")
    await reconciler(cluster).reconcile(KEY)
    assert kinds(cluster) == set()
    assert told(cluster, "Accepted") == ("False", "Refused", "no policies here")


def applied(cluster):
    return [note.partition("sdservice-preload-")[0] for reason, note in cluster.events if reason == "Applied"]


@pytest.mark.parametrize("failing", ["RayService", "status", "Event"])
@pytest.mark.parametrize("error", [Refused("no"), ClusterUnavailable("away")], ids=["refused", "away"])
async def test_writes_before_a_failure_are_told_once(api, reconciler, failing, error):
    cluster = api()
    pass_ = reconciler(cluster)
    cluster.errors[failing] = error
    for _ in range(2):
        try:
            await pass_.reconcile(KEY)
        except (ClusterUnavailable, Refused) as raised:
            assert raised is error  # noqa: PT017
    cluster.errors.clear()
    await pass_.reconcile(KEY)
    refused_event = failing == "Event" and isinstance(error, Refused)  # not worth a retry
    assert applied(cluster)[:1] == (
        [] if refused_event else ["Applied NetworkPolicy imagine-pods, DaemonSet "]
    )
    assert len({note for _, note in cluster.events}) == len(cluster.events)
    assert pass_.unreported == {}
