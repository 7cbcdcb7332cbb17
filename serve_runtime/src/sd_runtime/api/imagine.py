# SPDX-License-Identifier: Apache-2.0
"""`GET /imagine`: the route of the published AWS pattern, which its load test and its UI call."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import WithJsonSchema

from sd_runtime.api import content_negotiation, openapi, responses, validation
from sd_runtime.api.dependencies import RequestId, TheService, TheWanted
from sd_runtime.api.query import check_numbers, strict_query
from sd_runtime.api.schemas import ImagineQuery
from sd_runtime.store import cache_key

PATH = "/imagine"
_NOT_MODIFIED = 304


async def _strictly(request: Request) -> None:
    strict_query(request)
    check_numbers(request, ImagineQuery)


# The lines of one header are one list, whatever OpenAPI says of arrays.
Tags = Annotated[
    list[str] | None,
    Header(description="Entity tags of files at hand."),
    WithJsonSchema({"type": "string"}),
]

router = APIRouter(tags=["pictures"], dependencies=[Depends(_strictly)])


@router.get(
    PATH,
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": openapi.pictures("png")},
        304: {"description": "The picture of If-None-Match is still the one."},
        **openapi.errors(400, 406, 429, 500, 503, 504),
    },
)
async def imagine(
    query: Annotated[ImagineQuery, Query()],
    service: TheService,
    request_id: RequestId,
    wanted: TheWanted,
    if_none_match: Tags = None,
) -> Response:
    """Draw one picture: `/imagine?prompt=a red circle&img_size=64`. The answer is a PNG file.

    With a `seed` the answer has a weak `ETag` and may be cached: the same query makes the same picture.
    """
    content_negotiation.check(wanted.accept, ("image/png",))
    request = validation.from_imagine(query, service.terms(), validation.any_seed(), request_id)
    headers = responses.caching(request, service)
    if "ETag" in headers and cache_key.matches(", ".join(if_none_match or []), headers["ETag"]):
        return Response(status_code=_NOT_MODIFIED, headers=headers)
    if wanted.headers_only:
        return _without_length(headers)
    drawn = await service.draw(request)
    return responses.picture(drawn, request, headers)


def _without_length(headers: responses.Headers) -> Response:
    """The answer to HEAD: nothing is drawn, so nobody knows the length."""
    answer = Response(media_type="image/png", headers=headers)
    del answer.headers["content-length"]
    return answer
