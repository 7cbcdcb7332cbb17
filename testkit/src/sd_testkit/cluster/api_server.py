# SPDX-License-Identifier: Apache-2.0
"""API client of the stand-ins: list, create, patch, replace a status, delete, record an Event."""

import secrets
import string
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client import ApiClient, ApiException
from kubernetes.aio.dynamic import DynamicClient
from pydantic_core import from_json

from sd_testkit.json_types import Json

_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_TIMEOUT_SECONDS = 20
_GONE = 404
_EXISTS = 409
_APPLY = "application/apply-patch+yaml"
_MANAGER = "testkit"
_KINDS = {
    "StableDiffusionService": "sdservice.dev/v1alpha1",
    "RayService": "ray.io/v1",
    "RayCluster": "ray.io/v1",
    "DaemonSet": "apps/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Deployment": "apps/v1",
    "Pod": "v1",
    "Secret": "v1",
    "Service": "v1",
    "Event": "v1",
    "ServiceAccount": "v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "Lease": "coordination.k8s.io/v1",
}
_SUFFIX = string.ascii_lowercase + string.digits


def suffix(length: int = 5) -> str:
    """Return random lower-case letters and digits, as Kubernetes appends them to names."""
    return "".join(secrets.choice(_SUFFIX) for _ in range(length))


def now() -> str:
    """Return the current time in the format of Kubernetes."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _place(body: Json) -> Json:
    """Return the call arguments that locate an object."""
    return {key: body["metadata"][key] for key in ("name", "namespace")}


class ApiServer:
    """A client with only the calls that the stand-ins need. Responses are plain dictionaries."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._client: DynamicClient | None = None

    async def list_all(self, kind: str, **selectors: str) -> list[Json]:
        """Return every object of a kind, in all namespaces. The list is empty if the kind itself is gone."""
        resource = await self._resource(kind)
        try:
            # The client's own objects are not built here: their construction takes most of the time of a round.
            answer = await resource.get(_request_timeout=_TIMEOUT_SECONDS, serialize=False, **selectors)
        except ApiException as error:
            if error.status != _GONE:
                raise
            return []
        found = from_json(await answer.read())["items"]
        return [{"apiVersion": _KINDS[kind], "kind": kind, **each} for each in found]

    async def create(self, body: Json) -> Json | None:
        """Create an object. Return None if an object of that name exists already."""
        resource = await self._resource(body["kind"])
        namespace = body["metadata"]["namespace"]
        try:
            made = await resource.create(body=body, namespace=namespace, _request_timeout=_TIMEOUT_SECONDS)
        except ApiException as error:
            if error.status == _EXISTS:
                return None
            raise
        created: Json = made.to_dict()
        return created

    async def apply(self, body: Json) -> None:
        """Apply an object server-side, as a user who owns every field of the object."""
        resource = await self._resource(body["kind"])
        await resource.patch(
            body=body,
            **_place(body),
            content_type=_APPLY,
            field_manager=_MANAGER,
            force_conflicts=True,
            _request_timeout=_TIMEOUT_SECONDS,
        )

    async def scale(self, live: Json, replicas: int) -> None:
        """Write the scale subresource, as `kubectl scale` does."""
        resource = await self._resource(live["kind"])
        await resource.scale.patch(
            body={"spec": {"replicas": replicas}},
            **_place(live),
            content_type=_MERGE,
            _request_timeout=_TIMEOUT_SECONDS,
        )

    async def merge(self, live: Json, patch: Json) -> None:
        """Apply a merge patch to an object."""
        await self._patch(live, patch, _MERGE)

    async def json_patch(self, live: Json, operations: list[Json]) -> None:
        """Apply a JSON patch to an object."""
        await self._patch(live, operations, _JSON_PATCH)

    async def replace(self, body: Json) -> None:
        """Replace an object. The API server rejects the call if the object has changed since it was read."""
        resource = await self._resource(body["kind"])
        await resource.replace(body=body, **_place(body), _request_timeout=_TIMEOUT_SECONDS)

    async def replace_status(self, live: Json, status: Json) -> None:
        """Replace the status. The API server rejects the call if the object has changed since it was read."""
        resource = await self._resource(live["kind"])
        await resource.status.replace(
            body={**live, "status": status},
            **_place(live),
            _request_timeout=_TIMEOUT_SECONDS,
        )

    async def merge_status(self, live: Json, status: Json) -> None:
        """Apply a merge patch to the status of an object. An object that is gone is no error."""
        resource = await self._resource(live["kind"])
        try:
            await resource.status.patch(
                body={"status": status},
                **_place(live),
                content_type=_MERGE,
                _request_timeout=_TIMEOUT_SECONDS,
            )
        except ApiException as error:
            if error.status != _GONE:
                raise

    async def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """Return one object, or None."""
        resource = await self._resource(kind)
        try:
            found = await resource.get(name=name, namespace=namespace, _request_timeout=_TIMEOUT_SECONDS)
        except ApiException as error:
            if error.status == _GONE:
                return None
            raise
        body: Json = found.to_dict()
        return body

    async def delete(self, live: Json, *, grace_seconds: int | None = None) -> None:
        """Delete an object in the background. An object that is gone already is no error."""
        resource = await self._resource(live["kind"])
        grace = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        try:
            await resource.delete(
                **_place(live),
                body={"propagationPolicy": "Background", **grace},
                _request_timeout=_TIMEOUT_SECONDS,
            )
        except ApiException as error:
            if error.status != _GONE:
                raise

    async def event(self, involved: Json, reason: str, message: str, kind: str = "Normal") -> None:
        """Record an Event about an object."""
        metadata = involved["metadata"]
        about = {key: involved[key] for key in ("apiVersion", "kind")}
        about |= {key: metadata[key] for key in ("name", "namespace", "uid")}
        await self.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{metadata['name']}.{suffix(16)}", "namespace": metadata["namespace"]},
                "involvedObject": about,
                "type": kind,
                "reason": reason,
                "message": message,
                "firstTimestamp": now(),
                "lastTimestamp": now(),
            }
        )

    async def _patch(self, live: Json, patch: Any, content_type: str) -> None:
        resource = await self._resource(live["kind"])
        await resource.patch(
            body=patch,
            **_place(live),
            content_type=content_type,
            _request_timeout=_TIMEOUT_SECONDS,
        )

    async def _resource(self, kind: str) -> Any:
        if self._client is None:
            self._client = await DynamicClient(self._api)
        return await self._client.resources.get(api_version=_KINDS[kind], kind=kind)
