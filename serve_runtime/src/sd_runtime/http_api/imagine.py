# SPDX-License-Identifier: Apache-2.0
"""`GET /imagine`: the route of the published AWS pattern, which its load test and its UI call."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import WithJsonSchema

from sd_runtime import fingerprint, intake
from sd_runtime.http_api import accept, answers, documented
from sd_runtime.http_api.depends import RequestId, TheService, TheWanted
from sd_runtime.http_api.query import check_numbers, strict_query
from sd_runtime.protocol import ImagineQuery

PATH = "/imagine"
_NOT_MODIFIED = 304


def _strictly(request: Request) -> None:
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
        200: {"description": "The picture.", "content": documented.pictures("png")},
        304: {"description": "The picture of If-None-Match is still the one."},
        **documented.errors(400, 406, 429, 500, 503, 504),
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
    accept.check(wanted.accept, ("image/png",))
    request = intake.from_imagine(query, service.terms(), intake.any_seed(), request_id)
    headers = answers.caching(request, service)
    if "ETag" in headers and fingerprint.matches(", ".join(if_none_match or []), headers["ETag"]):
        return Response(status_code=_NOT_MODIFIED, headers=headers)
    if wanted.headers_only:
        return _without_length(headers)
    drawn = await service.draw(request)
    return answers.picture(drawn, request, headers)


def _without_length(headers: answers.Headers) -> Response:
    """The answer to HEAD: nothing is drawn, so nobody knows the length."""
    answer = Response(media_type="image/png", headers=headers)
    del answer.headers["content-length"]
    return answer
