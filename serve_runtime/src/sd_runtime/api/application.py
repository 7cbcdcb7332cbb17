# SPDX-License-Identifier: Apache-2.0
"""The FastAPI application of a service; built where it runs, so that nothing of it needs pickling."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from sd_runtime import __version__
from sd_runtime.api import about, errors, generations, imagine, jobs
from sd_runtime.api.access_log import Observed
from sd_runtime.api.body_limit import BodyLimit
from sd_runtime.api.cors import Cors
from sd_runtime.api.methods import Methods
from sd_runtime.api.service import Service
from sd_runtime.store.jobs import JobStore

_DESCRIPTION = """Prompts in, pictures out. `GET /imagine` is the shortest way; `/v1` speaks OpenAI's images API.

Every answer carries `x-request-id`; every error is JSON that names field, value and rule. Bounds of a request are in
`GET /v1/models`."""

_OF_DRAWING = frozenset({"429", "500", "503", "504"})  # HEAD draws nothing


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The document, without FastAPI's 422: what is invalid is 400 here."""
        if self.openapi_schema is None:
            self.openapi_schema = _document(self)
        return self.openapi_schema


def application(service: Service) -> FastAPI:
    """All routes over a service."""
    api = _Api(
        title="Image generation",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=_lifespan,
        redirect_slashes=False,  # behind a gateway with TLS the redirection would lead to plain HTTP
    )
    api.state.service = service
    api.state.jobs = JobStore(service.stream, service.clock)
    errors.install(api)
    for routes in (imagine, generations, jobs, about):
        api.include_router(routes.router)
    api.add_middleware(BodyLimit, service=service)
    api.add_middleware(Methods, routes=api.routes)
    api.add_middleware(Cors, service=service)
    api.add_middleware(Observed, service=service)
    return api


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncGenerator[None]:
    """At the end nobody can ask for the jobs any more: stop their work; and send the last spans."""
    yield
    await api.state.jobs.close()
    await asyncio.to_thread(api.state.service.tracing.close)


def _document(api: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=api.title, version=api.version, description=api.description, routes=api.routes
    )
    for name, path in document["paths"].items():
        for operation in path.values():
            operation["responses"].pop("422", None)
        if "get" in path:
            path["head"] = _headers_only(path["get"], _OF_DRAWING if name == imagine.PATH else frozenset())
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _headers_only(get: dict[str, Any], without: frozenset[str]) -> dict[str, Any]:
    """The HEAD operation of a path with this GET: the same answers, without content and without those statuses."""
    responses = {
        status: {part: value for part, value in answer.items() if part != "content"}
        for status, answer in get["responses"].items()
        if status not in without
    }
    summary, name = f"{get['summary']}: the headers alone", f"{get['operationId']}_head"
    return {**get, "summary": summary, "operationId": name, "responses": responses}
