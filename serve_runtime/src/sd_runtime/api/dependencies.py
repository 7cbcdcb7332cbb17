# SPDX-License-Identifier: Apache-2.0
"""FastAPI dependencies of the routes: the service, the jobs, the request id and the client's preferences.

FastAPI calls a plain function on a thread of its own, so every dependency is a coroutine.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from sd_runtime.api import errors
from sd_runtime.api.methods import wants_headers_only
from sd_runtime.api.service import Service
from sd_runtime.store.jobs import JobStore


async def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


async def _jobs(request: Request) -> JobStore:
    found: JobStore = request.app.state.jobs
    return found


async def _request_id(request: Request) -> str:
    return errors.request_id(request.headers)


@dataclass(frozen=True)
class Wanted:
    """The response that the client can use.

    Attributes:
        accept: the Accept header, with all of its lines joined.
        headers_only: whether the method is HEAD.
    """

    accept: str
    headers_only: bool


async def _wanted(request: Request) -> Wanted:
    return Wanted(", ".join(request.headers.getlist("accept")), wants_headers_only(request))


TheService = Annotated[Service, Depends(_service)]
TheJobs = Annotated[JobStore, Depends(_jobs)]
RequestId = Annotated[str, Depends(_request_id)]
TheWanted = Annotated[Wanted, Depends(_wanted)]
