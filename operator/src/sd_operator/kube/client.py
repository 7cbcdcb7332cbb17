# SPDX-License-Identifier: Apache-2.0
"""The client of the API server: read, apply, patch, create and delete, with deadlines and the operator's own errors."""

import json
from collections.abc import AsyncIterator, Callable, Mapping

import aiohttp
from kubernetes.aio.client import ApiClient
from pydantic_core import from_json

from sd_operator.bounded_http import MOST_BYTES, Answer
from sd_operator.errors import ClusterUnavailable
from sd_operator.json_types import Json
from sd_operator.kube.failures import failure, is_failed_test, names_an_object
from sd_operator.kube.kinds import Kind, kind_of
from sd_operator.kube.service_proxy import ServiceProxy

Operations = list[Json]

_GONE = 404
_CONFLICT = 409
_UNPROCESSABLE = 422
_APPLY = "application/apply-patch+yaml; charset=utf-8"  # with this spelling the client library sends text unchanged
_NOT_AS_IT_IS = (0x7F, *range(0x80, 0xA0), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF)
_ESCAPED = {code: f"\\u{code:04x}" for code in _NOT_AS_IT_IS}
_JSON_PATCH = "application/json-patch+json"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE = 100
_UNTIL_IT_LEADS = 2.0


class Cluster:
    """A client of the API server.

    Every method may raise ClusterUnavailable (retry), Refused (a person must act), KubeRayMissing or KubeRayTooOld.
    """

    def __init__(
        self,
        api: ApiClient,
        request_timeout_seconds: float,
        may_write: Callable[[], bool] = lambda: True,
        services: ServiceProxy | None = None,
    ) -> None:
        self._api = api
        self._timeout = request_timeout_seconds
        self._may_write = may_write
        self._services = services or ServiceProxy(api)

    def parts(self) -> tuple[ApiClient, float, Callable[[], bool]]:
        """The parts for another client of the same API server: connections, deadline, and the check before each write."""
        return self._api, self._timeout, self._may_write

    def but(
        self, *, request_timeout_seconds: float | None = None, may_write: Callable[[], bool] | None = None
    ) -> "Cluster":
        """A client with the same connections, and another deadline or another check before each write."""
        timeout = request_timeout_seconds or self._timeout
        return Cluster(self._api, timeout, may_write or self._may_write, self._services)

    def unlisted(self) -> "Cluster":
        """A client that reads every object from the API server, and none from lists."""
        return self

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """The live object; None if there is none."""
        return await self._request("GET", kind, kind.path(namespace, name), may_be_gone=True)

    async def metadata(self, kind: Kind, namespace: str | None, selector: str = "") -> AsyncIterator[Json]:
        """Metadata of the objects of a namespace (None: all namespaces) that match a label selector, read page by page.

        Only one page is in memory at a time, because managedFields make metadata large.
        """
        async for page in self.pages(kind, namespace, selector, accept=_METADATA_ONLY):
            for item in page:
                yield item["metadata"]

    async def pages(
        self, kind: Kind, namespace: str | None, selector: str = "", *, accept: str = "application/json"
    ) -> AsyncIterator[list[Json]]:
        """The objects of a namespace (None: all namespaces) that match a label selector, page by page, as new as etcd.

        Only one page is in memory at a time, unless the caller keeps its objects.

        Args:
            kind: the kind of the objects.
            namespace: the namespace.
            selector: a label selector; empty: all objects.
            accept: media type of the answers.
        """
        query = {"labelSelector": selector, "limit": str(_PAGE)}
        while True:
            answer = await self._request("GET", kind, kind.path(namespace), query, headers={"Accept": accept})
            if answer is None:
                return
            yield [_typed(kind, item) for item in answer["items"] or ()]
            query["continue"] = answer["metadata"].get("continue") or ""
            if not query["continue"]:
                return

    async def list_newest(self, kind: Kind, namespace: str, selector: str) -> list[Json]:
        """The objects of a namespace that match a label selector, in one answer, as new as etcd."""
        query = {"labelSelector": selector}
        answer = await self._request("GET", kind, kind.path(namespace), query)
        return [] if answer is None else [_typed(kind, item) for item in answer["items"] or ()]

    async def list(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> list[Json]:
        """Objects of a namespace (None: all namespaces) that have these labels and field values, from the watch cache.

        The API server's watch cache is a moment old. A read of the newest objects would wait until the cache knows that it has
        missed nothing. The cache learns this ten times a second, as soon as anything else is written in the cluster. A found
        object may therefore be gone or changed. Writes are safe: they are applied, tested or bound to a uid, and fail visibly.
        """
        selectors = {"labelSelector": labels or {}, "fieldSelector": fields or {}}
        query = {
            name: ",".join(f"{key}={value}" for key, value in wanted.items())
            for name, wanted in selectors.items()
            if wanted
        }
        query["resourceVersion"] = "0"
        answer = await self._request("GET", kind, kind.path(namespace), query)
        return [] if answer is None else [_typed(kind, item) for item in answer["items"]]

    async def get_through_service(
        self,
        namespace: str,
        service: str,
        path: str,
        headers: Mapping[str, str],
        *,
        seconds: float,
        most: int = MOST_BYTES,
    ) -> Answer:
        """GET from a Service (`name:port`) through the API server's proxy, with additional headers.

        A pod of a tenant answers, so the errors are those of `bounded_http.request`.
        """
        return await self._services.get(namespace, service, path, headers, seconds=seconds, most=most)

    async def apply(self, body: Json, manager: str) -> Json:
        """Server-side apply of an object of the operator; the operator wins every conflict over the fields in it."""
        kind, metadata = kind_of(body), body["metadata"]
        return await self._apply(kind, kind.path(metadata["namespace"], metadata["name"]), body, manager)

    async def apply_status(self, body: Json, manager: str) -> Json:
        """Server-side apply of the status subresource."""
        kind, metadata = kind_of(body), body["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"], "status")
        return await self._apply(kind, path, body, manager)

    async def patch(self, kind: Kind, live: Json, operations: Operations, manager: str) -> Json | None:
        """JSON patch of a live object; None if one of its tests fails, because the object has changed."""
        metadata = live["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"])
        query = {"fieldManager": manager, "fieldValidation": "Strict"}
        return await self._request(
            "PATCH",
            kind,
            path,
            query,
            operations,
            content_type=_JSON_PATCH,
            may_be_gone=True,
            may_not_fit=True,
        )

    async def create(self, body: Json, manager: str) -> Json | None:
        """Create an object; None if an object of that name exists already."""
        kind = kind_of(body)
        query = {"fieldManager": manager}
        path = kind.path(body["metadata"]["namespace"])
        return await self._request("POST", kind, path, query, body, may_exist=True)

    async def replace(self, body: Json, manager: str) -> Json | None:
        """Replace an object; None if it is gone, or no longer has the version in the body."""
        kind, metadata = kind_of(body), body["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"])
        query = {"fieldManager": manager}
        return await self._request("PUT", kind, path, query, body, may_be_gone=True, may_not_fit=True)

    async def delete(self, kind: Kind, live: Json, *, unchanged: bool = False) -> None:
        """Delete exactly this object; an object with the same name and another uid stays.

        Args:
            kind: its kind.
            live: the object as it was read.
            unchanged: delete it only if it still has the version that was read; otherwise raise ClusterUnavailable.
        """
        metadata = live["metadata"]
        preconditions = {"uid": metadata["uid"]}
        if unchanged:
            preconditions["resourceVersion"] = metadata["resourceVersion"]
        body = {"preconditions": preconditions, "propagationPolicy": "Background"}
        path = kind.path(metadata["namespace"], metadata["name"])
        await self._request("DELETE", kind, path, body=body, may_be_gone=True)

    async def _apply(self, kind: Kind, path: str, body: Json, manager: str) -> Json:
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        answer = await self._request("PATCH", kind, path, query, yaml_text(body), content_type=_APPLY)
        return answer or {}

    async def _request(
        self,
        method: str,
        kind: Kind,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Json | Operations | str | None = None,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        may_be_gone: bool = False,
        may_exist: bool = False,
        may_not_fit: bool = False,
    ) -> Json | None:
        if method != "GET" and not self._may_write():
            raise ClusterUnavailable(
                "this operator writes nothing, because it does not hold the Lease", _UNTIL_IT_LEADS
            )
        sent = {"Accept": "application/json", "Content-Type": content_type, **(headers or {})}
        status, received, data = await self._send(method, path, query or {}, body, sent)
        if 200 <= status < 300:  # noqa: PLR2004 - success
            return _object(kind, data)
        if may_be_gone and status == _GONE and names_an_object(data):
            return None
        if may_exist and status == _CONFLICT:
            return None
        if may_not_fit and (status == _CONFLICT or (status == _UNPROCESSABLE and is_failed_test(data))):
            return None
        raise failure(kind, status, data, received.get("Retry-After"))

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Json | Operations | str | None,
        headers: Mapping[str, str],
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params=dict(headers),
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*request, _request_timeout=self._timeout)
            return response.status, response.getheaders(), await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterUnavailable(
                f"no answer from the API server: {str(error) or type(error).__name__}"
            ) from error


def yaml_text(body: Json) -> str:
    """The body as JSON that is also valid YAML, because the API server reads applied objects as YAML.

    YAML has no surrogate pairs, which JSON may use for characters beyond 16 bits, and accepts no raw control characters.
    """
    return json.dumps(body, ensure_ascii=False).translate(_ESCAPED)


def _typed(kind: Kind, item: Json) -> Json:
    """An item of a list with apiVersion and kind added, so that it can be applied and deleted by itself."""
    return {"apiVersion": kind.api_version, "kind": kind.name, **item}


def _object(kind: Kind, data: bytes) -> Json:
    try:
        answer: Json = from_json(data)  # twice as fast as the standard library
    except ValueError as error:  # a proxy in front of the API server answered
        raise ClusterUnavailable(f"{kind.name}: the answer is not JSON") from error
    return answer
