# SPDX-License-Identifier: Apache-2.0
"""The FastAPI application of a service. The ingress builds it in its own process, so that it is never pickled."""

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

_DESCRIPTION = """This service generates images from prompts. `GET /imagine` is the shortest way to an image; `/v1` is
compatible with OpenAI's images API.

Every response carries `x-request-id`. Every error is JSON, and its message names the field, the value and the rule.
`GET /v1/models` lists the limits of a request."""

_OF_DRAWING = frozenset({"429", "500", "503", "504"})  # a HEAD request generates no image


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, without FastAPI's 422: this API answers an invalid request with 400."""
        if self.openapi_schema is None:
            self.openapi_schema = _document(self)
        return self.openapi_schema


def application(service: Service) -> FastAPI:
    """The application with all routes, middleware and error handlers of a service."""
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
    """Stop all jobs at shutdown, since no client can fetch them later, and send the last spans."""
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
    """The HEAD operation for a GET operation: the same responses, without content and without the given statuses."""
    responses = {
        status: {part: value for part, value in answer.items() if part != "content"}
        for status, answer in get["responses"].items()
        if status not in without
    }
    summary, name = f"{get['summary']} (headers only)", f"{get['operationId']}_head"
    return {**get, "summary": summary, "operationId": name, "responses": responses}
