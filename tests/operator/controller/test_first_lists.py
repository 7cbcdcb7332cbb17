# SPDX-License-Identifier: Apache-2.0
"""Passes that work from lists, against an API server in memory that counts its requests."""

import copy
import json
from datetime import UTC, datetime

import pytest

from sd_operator import naming
from sd_operator.api import parse_live
from sd_operator.controller import first_lists
from sd_operator.errors import KubeRayMissing, RayUnavailable
from sd_operator.kube import (
    DAEMON_SET,
    DEPLOYMENT,
    NETWORK_POLICY,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
    SERVICE,
    Cluster,
    kind_of,
)
from sd_operator.naming import Key
from sd_operator.observe.node_cache import NodeReader
from sd_operator.observe.observer import Observer
from sd_operator.observe.preload_reader import PreloadReader
from sd_operator.ray.probe_poller import ProbePoller
from sd_operator.ray.serve_poller import ServePoller
from sd_operator.ray.serve_reader import Asks, ServeReader
from sd_operator.reconcile.desired import desired
from sd_operator.reconcile.reconciler import Reconciler
from sd_operator.settings import Settings

KEY, OTHER = Key("team", "imagine"), Key("team", "other")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SETTINGS = Settings()


class Memory(Cluster):
    """Objects by kind and name; every request that is sent is noted."""

    def __init__(self):
        super().__init__(None, 20.0)
        self.objects, self.sent, self.missing = {}, [], ()

    async def pages(self, kind, namespace):
        for name in sorted(self.objects[kind]):
            yield [self.objects[kind][name]]

    async def list_newest(self, kind, namespace, selector):
        if kind in self.missing:
            raise KubeRayMissing("no such kind")
        return [
            each
            for each in self.objects.get(kind, {}).values()
            if f"({each['metadata']['labels'].get(naming.NAME_LABEL)})" in selector
        ]

    def parts(self):
        """The requests of every client made of this one are noted."""
        return self, 20.0, lambda: True


@pytest.fixture
def sent(monkeypatch):
    """(method, kind of path) of each request that leaves, which is answered by nothing.

    The LIST of what the services of a namespace share is not among them: it is read once for all of them.
    """
    found = []

    async def send(self, method, path, query, body, headers):
        if method == "GET" and f"{naming.COMPONENT_LABEL}={naming.PRELOAD}" in query.get("labelSelector", ""):
            return 200, {}, b'{"metadata": {}, "items": []}'
        found.append((method, path.rpartition("/")[0].rpartition("/")[2] if method == "GET" else path))
        if method == "GET":
            return 404, {}, b'{"details": {"name": "x"}}'
        return 200, {}, b'{"metadata": {"uid": "x", "resourceVersion": "1"}}'

    monkeypatch.setattr(Cluster, "_send", send)
    return found


def owned_by_us(value):
    """FieldsV1 of everything in a value."""
    return {f"f:{key}": owned_by_us(each) for key, each in value.items()} if isinstance(value, dict) else {}


@pytest.fixture
def cluster(service):
    """A service that is as it should be: suspended, with its RayService and its NetworkPolicy."""
    memory = Memory()
    identity = {
        "namespace": "team",
        "name": "imagine",
        "uid": "uid-1",
        "generation": 1,
        "resourceVersion": "1",
    }
    body = service(metadata=identity, spec={"suspend": True, "imagePreload": {"mode": "Disabled"}})
    memory.objects[SERVICE] = {"imagine": body}
    return memory


def add(memory, body):
    kept = {key: value for key, value in body.items() if key not in {"apiVersion", "kind", "metadata"}}
    metadata = {
        key: value
        for key, value in body["metadata"].items()
        if key in {"labels", "annotations", "ownerReferences"}
    }
    fields = {
        **owned_by_us(kept),
        "f:metadata": {
            f"f:{key}": owned_by_us(value) if isinstance(value, dict) else {}
            for key, value in metadata.items()
        },
    }
    entry = {"manager": naming.FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields}
    body = copy.deepcopy(body)
    body["metadata"] |= {"uid": f"uid-{body['kind']}", "resourceVersion": "1", "managedFields": [entry]}
    memory.objects.setdefault(kind_of(body), {})[body["metadata"]["name"]] = body


async def silent(_):
    raise RayUnavailable("no answer")


async def a_pass(memory, charged):
    """One pass from lists."""
    nodes = NodeReader(memory)
    polls = ServePoller(ServeReader(Asks(silent, silent), lambda: NOW)), ProbePoller(silent)
    observer = Observer(memory, *polls, nodes, PreloadReader(memory, nodes))

    async def charge():
        charged.append(1)

    reconciler = Reconciler(memory, SETTINGS, observer, lambda: NOW)
    async for batch in first_lists.batches(memory, None):
        for key, objects in batch.items():
            listed = first_lists.listed(memory, key, objects, charge)
            await reconciler.reading(listed).reconcile(key)


@pytest.fixture
def as_it_should_be(cluster):
    parsed = parse_live(copy.deepcopy(cluster.objects[SERVICE]["imagine"]))
    for body in desired(parsed, SETTINGS):
        add(cluster, body)
    return cluster


async def test_a_service_that_is_as_it_should_be_costs_one_write_of_its_first_status(as_it_should_be, sent):
    charged = []
    await a_pass(as_it_should_be, charged)
    assert [path.rpartition("/")[2] for method, path in sent if method == "PATCH"] == ["status"]
    assert {method for method, _ in sent} <= {"PATCH", "POST"}, (
        "nothing was read; Events of its flips were made"
    )
    assert charged == [1], "what sends a request takes a token after all, once"


async def test_a_service_whose_status_is_right_too_costs_no_request(as_it_should_be, sent, monkeypatch):
    written = []
    send = Cluster._send

    async def keeping(self, method, path, query, body, headers):
        if path.endswith("/status"):
            written.append(json.loads(body)["status"])
        return await send(self, method, path, query, body, headers)

    monkeypatch.setattr(Cluster, "_send", keeping)
    await a_pass(as_it_should_be, [])
    as_it_should_be.objects[SERVICE]["imagine"]["status"] = written[0]
    sent.clear()
    charged = []
    await a_pass(as_it_should_be, charged)
    assert (sent, charged) == ([], [])


async def test_the_token_is_looked_for_where_there_is_no_ray_service_yet(cluster, sent):
    await a_pass(cluster, [])
    assert ("GET", "secrets") in sent
    assert ("GET", "rayservices") in sent, "it may have lost its label"


async def test_the_token_is_read_where_ray_is_asked_with_it(as_it_should_be, sent):
    labels = {naming.NAME_LABEL: "imagine", naming.RAY_POD_LABEL: "yes", "ray.io/node-type": "head"}
    as_it_should_be.objects[POD] = {"head": {"metadata": {"name": "head", "labels": labels}}}
    await a_pass(as_it_should_be, [])
    assert [path for method, path in sent if method == "GET"] == ["secrets"]


async def test_a_kind_that_cannot_be_listed_is_asked_for(as_it_should_be, sent):
    as_it_should_be.missing = (RAY_SERVICE,)
    await a_pass(as_it_should_be, [])
    assert ("GET", "rayservices") in sent


async def test_objects_go_to_the_service_that_their_label_names(cluster):
    for name in ("imagine", "other"):
        cluster.objects[SERVICE][name] = {"metadata": {"namespace": "team", "name": name}}
        for kind in (RAY_CLUSTER, DAEMON_SET, DEPLOYMENT, NETWORK_POLICY, POD):
            labels = {naming.NAME_LABEL: name, naming.MANAGED_BY_LABEL: "sd-operator"}
            made = {"metadata": {"namespace": "team", "name": f"{name}-x", "labels": labels}}
            cluster.objects.setdefault(kind, {})[f"{name}-x"] = made
    found = {}
    async for batch in first_lists.batches(cluster, None):
        found |= batch
    assert set(found) == {KEY, OTHER}

    async def charge():
        raise AssertionError("asked")

    listed = first_lists.listed(cluster, OTHER, found[OTHER], charge)
    assert (await listed.get(NETWORK_POLICY, "team", "other-x"))["metadata"]["name"] == "other-x"
    for kind in (RAY_CLUSTER, DAEMON_SET, DEPLOYMENT, POD):
        assert len(await listed.list(kind, "team", naming.labels("other"))) == 1
        assert await listed.list(kind, "team", {**naming.labels("other"), "more": "yes"}) == []
