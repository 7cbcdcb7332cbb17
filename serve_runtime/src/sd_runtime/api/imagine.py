# SPDX-License-Identifier: Apache-2.0
"""`GET /imagine`: the route of the published AWS pattern. The load test and the UI of that pattern call it."""

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


# Several lines of one header form one list, so the document declares a string and not OpenAPI's array.
Tags = Annotated[
    list[str] | None,
    Header(description="Entity tags of the files that the client already has."),
    WithJsonSchema({"type": "string"}),
]

router = APIRouter(tags=["pictures"], dependencies=[Depends(_strictly)])


@router.get(
    PATH,
    summary="Generate one image",
    response_class=Response,
    responses={
        200: {"description": "The image.", "content": openapi.pictures("png")},
        304: {"description": "The image has not changed since the tag in If-None-Match was issued."},
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
    """Generate one image: `/imagine?prompt=a red circle&img_size=64`. The response is a PNG file.

    If the query has a `seed`, the response has a weak `ETag` and may be cached: the same query generates the same image.
    """
    content_negotiation.check(wanted.accept, ("image/png",))
    request = validation.from_imagine(query, service.policy(), validation.any_seed(), request_id)
    headers = responses.caching(request, service)
    if "ETag" in headers and cache_key.matches(", ".join(if_none_match or []), headers["ETag"]):
        return Response(status_code=_NOT_MODIFIED, headers=headers)
    if wanted.headers_only:
        return _without_length(headers)
    drawn = await service.draw(request)
    return responses.picture(drawn, request, headers)


def _without_length(headers: responses.Headers) -> Response:
    """The response to HEAD. No image is generated, so its length is not known."""
    answer = Response(media_type="image/png", headers=headers)
    del answer.headers["content-length"]
    return answer
