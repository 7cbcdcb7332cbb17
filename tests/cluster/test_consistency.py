# SPDX-License-Identifier: Apache-2.0
"""Each field of the spec is changed on a live service: the change becomes visible, and a revert restores the initial state.

The fields are those of the CRD's schema, so each new field is covered at once. Each field has its own service, and all
services run at the same time. A real operator process reconciles them.
"""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, ApiException, Configuration

from sd_operator.api.crd import custom_resource_definition
from sd_testkit.cluster.api_server import ApiServer
from sd_testkit.generators.fields import changes
from sd_testkit.generators.merging import merged

BASE, ITEMS, SAMPLES, TIMES = yaml.safe_load(
    (Path(__file__).parents[1] / "data/fields.yaml").read_text()
).values()
VERSION = custom_resource_definition()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]
CHANGES = {
    f"field-{number}": each
    for number, each in enumerate(changes(SCHEMA, BASE, ITEMS, SAMPLES))
    if each.path not in TIMES
}
AT_ONCE = 8
SERVICE = {"apiVersion": "sdservice.dev/v1alpha1", "kind": "StableDiffusionService"}


class Services:
    """The services of one namespace, many at a time."""

    def __init__(self, api, namespace):
        self._server, self._namespace = ApiServer(api), namespace
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def apply(self, specs):
        """Apply a spec per name; return the generations that result."""
        await asyncio.gather(*(self._apply(name, spec) for name, spec in specs.items()))
        return {each["metadata"]["name"]: each["metadata"]["generation"] for each in await self.live()}

    async def _apply(self, name, spec):
        async with self._slots:
            metadata = {"name": name, "namespace": self._namespace}
            await self._server.apply({**SERVICE, "metadata": metadata, "spec": spec})

    async def refuses(self, name, spec):
        """Whether the API server refuses it."""
        try:
            await self._apply(name, spec)
        except ApiException as error:
            return error.status == 422
        return False

    async def live(self, kind="StableDiffusionService"):
        found = await self._server.list_all(kind)
        return [each for each in found if each["metadata"]["namespace"] == self._namespace]

    async def settled(self, within=240):
        """Wait until each status is that of the latest spec and each RayService was applied; return all that shows."""
        async with asyncio.timeout(within):
            while True:
                shown = await self._shown()
                if len(shown) == len(CHANGES) and all(each["settled"] for each in shown.values()):
                    return shown
                await asyncio.sleep(1)

    async def _shown(self):
        shown = {}
        for live in await self.live():
            status = live.get("status", {})
            settled = status.get("observedGeneration") == live["metadata"]["generation"]
            shown[live["metadata"]["name"]] = {"settled": settled, "status": _status(status), "children": {}}
        for kind in ("RayService", "DaemonSet", "Deployment", "NetworkPolicy"):
            for child in await self.live(kind):
                for owner in _services(child["metadata"]):
                    shown[owner]["children"][f"{kind} {child['metadata']['name']}"] = _child(child)
        for name, each in shown.items():
            each["settled"] = each["settled"] and f"RayService {name}" in each["children"]
        return shown


def _services(metadata):
    """Whose a child is: of the one that its label names, or of those that share it."""
    name = metadata["labels"].get("sdservice.dev/name")
    return [name] if name else [each["name"] for each in metadata["ownerReferences"]]


def _status(status):
    """What a status says of the spec; whatever moves by itself is left out."""
    kept = {key: value for key, value in status.items() if key in {"model", "image", "url", "selector"}}
    replicas = status.get("replicas", {})
    return {**kept, "replicas": {key: replicas.get(key) for key in ("min", "max")}}


def _child(child):
    labels, annotations = (child["metadata"].get(key) or {} for key in ("labels", "annotations"))
    # Kubernetes counts the changes of a DaemonSet there.
    annotations = {
        key: value for key, value in annotations.items() if not key.startswith("deprecated.daemonset.")
    }
    return json.dumps([labels, annotations, child["spec"]], sort_keys=True)


@pytest.fixture
async def services(control_plane, operator, namespace):
    configuration = Configuration()
    await config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        yield Services(api, namespace)


async def test_each_field_shows_and_the_way_back_leads_back(services):
    before = {name: change.before for name, change in CHANGES.items()}
    await services.apply(before)
    first = await services.settled()

    refused = {name: change for name, change in CHANGES.items() if change.admits}
    for name, change in refused.items():
        assert await services.refuses(name, merged(change.before, change.admits)), change.path

    await services.apply({name: change.after for name, change in CHANGES.items()})
    second = await services.settled()
    shows = {name for name in CHANGES if second[name] != first[name]}
    for name, change in refused.items():
        assert not await services.refuses(name, merged(change.after, change.admits)), change.path
        shows.add(name)
    without_effect = [change.path for name, change in CHANGES.items() if name not in shows]
    assert without_effect == [], "these fields change nothing"

    await services.apply(before)
    third = await services.settled()
    changed = [change.path for name, change in CHANGES.items() if third[name] != first[name]]
    assert changed == [], "after these fields were changed and changed back, something is left"
