# SPDX-License-Identifier: Apache-2.0
"""What a route gets beside its own input."""

from typing import Annotated

from fastapi import Depends, Request

from sd_runtime import http_errors
from sd_runtime.errors import InvalidRequest
from sd_runtime.jobs import JobStore
from sd_runtime.service import Service


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def _jobs(request: Request) -> JobStore:
    found: JobStore = request.app.state.jobs
    return found


def _request_id(request: Request) -> str:
    return http_errors.request_id(request.headers)


def no_query(request: Request) -> None:
    """Refuse a query where there is none to give: a misspelt setting must not be dropped in silence."""
    for name in request.query_params:
        raise InvalidRequest(
            f"{name[:80]}: unknown query parameter; remove it", name[:80], code="unknown_field"
        )


TheService = Annotated[Service, Depends(_service)]
TheJobs = Annotated[JobStore, Depends(_jobs)]
RequestId = Annotated[str, Depends(_request_id)]
