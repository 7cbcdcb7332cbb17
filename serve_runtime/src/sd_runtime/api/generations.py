# SPDX-License-Identifier: Apache-2.0
"""`POST /v1/images/generations`: OpenAI's route. It answers with JSON, an image file or an event stream."""

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse, StreamingResponse

from sd_runtime.api import content_negotiation, events, openapi, responses, validation
from sd_runtime.api.dependencies import RequestId, TheService, TheWanted
from sd_runtime.api.json_body import JsonRoute
from sd_runtime.api.query import no_query
from sd_runtime.api.schemas import GenerationAnswer, GenerationBody
from sd_runtime.engine.interface import ImageRequest
from sd_runtime.errors import InvalidRequest

router = APIRouter(tags=["pictures"], dependencies=[Depends(no_query)], route_class=JsonRoute)
_OFFERS = (content_negotiation.JSON, *content_negotiation.PICTURES)


@router.post(
    "/v1/images/generations",
    summary="Generate images",
    response_model=GenerationAnswer,
    responses={
        200: {
            "description": "The images: inline, as a file (`Accept: image/png`), or as server-sent events (`stream`).",
            "content": {
                **openapi.pictures("png", "jpeg", "webp"),
                "text/event-stream": {"schema": {"type": "string"}, "example": events.EXAMPLE},
            },
        },
        **openapi.errors(400, 406, 408, 413, 415, 429, 500, 503, 504),
    },
)
async def generations(
    body: GenerationBody, service: TheService, request_id: RequestId, wanted: TheWanted
) -> Response:
    """Generate images, as in OpenAI's images API. Seed, steps, guidance and negative prompt are additional fields.

    With `Accept: image/png` (or jpeg, webp) the response is one image file. With `stream: true` the response is a stream
    of the events `image_generation.partial_image` and `image_generation.completed`.
    """
    if not body.stream:
        content_negotiation.check(wanted.accept, _OFFERS)
    as_file = content_negotiation.prefers_picture(wanted.accept) and not body.stream
    file_format = content_negotiation.picture_format(wanted.accept) if as_file else None
    request = validation.from_body(body, service.policy(), validation.any_seed(), request_id, file_format)
    if body.stream:
        return StreamingResponse(
            await events.stream(service, request), media_type=events.MEDIA_TYPE, headers=events.HEADERS
        )
    if as_file:
        _check_file(request, file_format or request.output.format)
        return responses.picture(await service.draw(request), request, responses.caching(request, service))
    drawn = await service.draw(request)
    return JSONResponse(responses.inline(drawn, request).model_dump(), headers=responses.image_headers(drawn))


def _check_file(request: ImageRequest, wanted: str) -> None:
    if request.count != 1:
        raise InvalidRequest(f"n: got {request.count}: must be 1 if Accept requests an image file", "n")
    if wanted != request.output.format:
        raise InvalidRequest(
            f"output_format: got {request.output.format!r}: Accept requests image/{wanted}", "output_format"
        )
