# SPDX-License-Identifier: Apache-2.0
"""User actions on one service: apply, read, request a picture, delete the head."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException

from sd_testkit.cluster.api_server import ApiServer
from sd_testkit.generators.merging import merged
from sd_testkit.json_types import Json

NAME = "imagine"
_POLL_SECONDS = 0.3
_OK = 200


@dataclass(frozen=True)
class Answer:
    """The outcome of a request: its HTTP status (0: no response), and its duration."""

    status: int
    seconds: float

    @property
    def served(self) -> bool:
        """Whether the response is a picture."""
        return self.status == _OK


@dataclass
class User:
    """A user with a kubeconfig, a namespace and one service in it.

    Attributes:
        base: the StableDiffusionService over which every change is merged.
        patience: seconds to wait for an expected state.
        reading: seconds for reading the status. A person does not undo a change at the moment it fails.
    """

    api: ApiClient
    namespace: str
    base: Json
    patience: float = 120.0
    reading: float = 0.0
    quiet: bool = False
    _server: ApiServer = field(init=False)

    def __post_init__(self) -> None:
        """Connect to the API server of the client."""
        self._server = ApiServer(self.api)

    async def apply(self, **spec: Any) -> None:
        """Server-side apply of the base, with changes merged over its spec.

        Raises:
            ApiException: the API server refuses the spec.
        """
        body = {**self.base, "spec": merged(self.base["spec"], spec)}
        body["metadata"] = {"name": NAME, "namespace": self.namespace}
        await self._server.apply(body)

    async def delete(self) -> None:
        """Delete the service."""
        live = await self.service()
        if live is not None:
            await self._server.delete(live)

    async def read(self) -> None:
        """Wait for the time that a person needs to read the status."""
        await asyncio.sleep(self.reading)

    async def service(self) -> Json | None:
        """Return the live StableDiffusionService."""
        return await self.get("StableDiffusionService", NAME)

    async def get(self, kind: str, name: str = NAME) -> Json | None:
        """Return a live object of the namespace."""
        return await self._server.get(kind, self.namespace, name)

    async def list(self, kind: str, labels: str = "") -> "list[Json]":
        """Return live objects of the namespace."""
        found = await self._server.list_all(kind, label_selector=labels)
        return [each for each in found if each["metadata"]["namespace"] == self.namespace]

    async def kill_head(self) -> None:
        """Delete the head pod of the active cluster."""
        for pod in await self.list("Pod", f"ray.io/node-type=head,sdservice.dev/name={NAME}"):
            await self._server.delete(pod)

    async def scale(self, replicas: int) -> None:
        """Scale as `kubectl scale` does."""
        live = await self.service()
        if live is not None:
            await self._server.scale(live, replicas)

    async def request(self, timeout_seconds: float = 5.0) -> Answer:
        """Request a picture through the Service for requests, by way of the API server's proxy."""
        path = f"/api/v1/namespaces/{self.namespace}/services/{NAME}-serve-svc:serve/proxy/imagine"
        began = time.monotonic()
        try:
            request = await self.api.param_serialize(
                "GET",
                path,
                query_params=[("prompt", "a red circle")],
                header_params={"Accept": "*/*"},
                auth_settings=["BearerToken"],
            )
            response = await self.api.call_api(*request, _request_timeout=timeout_seconds)
            await response.read()
            status = int(response.status)
        except ApiException as error:
            status = int(error.status or 0)
        except (aiohttp.ClientError, TimeoutError, OSError):
            status = 0
        return Answer(status, time.monotonic() - began)

    async def condition(self, kind: str) -> tuple[str, str]:
        """Return (status, reason) of a condition for the latest spec; empty while it describes an older one."""
        live = await self.service()
        status = (live or {}).get("status") or {}
        if live is None or status.get("observedGeneration") != live["metadata"]["generation"]:
            return "", ""
        found = (each for each in status.get("conditions", []) if each["type"] == kind)
        return next(((each["status"], each["reason"]) for each in found), ("", ""))

    async def until(self, what: str, holds: Callable[[], Any]) -> None:
        """Wait for an asynchronous condition.

        Raises:
            AssertionError: the condition does not hold in time; the message has the current service.
        """
        deadline = time.monotonic() + self.patience
        while True:
            failure: Exception | None = None
            try:
                if await holds():
                    return
            except (KeyError, TypeError, IndexError) as error:
                failure = error
            if time.monotonic() > deadline:
                state = json.dumps(await self.service(), indent=1, default=str)
                raise AssertionError(
                    f"{what}: did not happen within {self.patience:.0f} s\n{state}"
                ) from failure
            await asyncio.sleep(_POLL_SECONDS)

    async def until_condition(self, kind: str, status: str, *reasons: str) -> None:
        """Wait for a condition, with any reason if none is named."""

        async def holds() -> bool:
            found, reason = await self.condition(kind)
            return found == status and (not reasons or reason in reasons)

        await self.until(f"{kind}={status} {' or '.join(reasons)}", holds)

    async def until_served(self) -> None:
        """Wait until a request returns a picture."""

        async def holds() -> bool:
            return (await self.request()).served

        await self.until("a picture", holds)

    async def until_changed(self) -> None:
        """Wait until the running configuration is that of the spec, in one cluster."""
        await self.until_condition("ConfigApplied", "True")
        await self.until_condition("Ready", "True")

    async def active_cluster(self) -> str:
        """Return the name of the active RayCluster."""
        live = await self.service()
        return str(((live or {}).get("status") or {}).get("activeRayCluster", ""))
