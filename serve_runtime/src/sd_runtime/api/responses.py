# SPDX-License-Identifier: Apache-2.0
"""HTTP responses that contain images."""

import base64
import time
from collections.abc import Iterable
from dataclasses import asdict

from fastapi import Response

from sd_runtime.api.schemas import GeneratedImage, GenerationAnswer, WarningNote
from sd_runtime.api.service import Drawn, Service
from sd_runtime.engine.interface import ImageRequest, Picture, RequestWarning
from sd_runtime.engine.postprocess import encode
from sd_runtime.store.cache_key import etag

_FRESH_SECONDS = 3600

Headers = dict[str, str]


def caching(request: ImageRequest, service: Service) -> Headers:
    """The caching headers of an image: a cache may keep it only if the client chose the seed.

    A cache revalidates after an hour, because the service's defaults affect the image and may change.
    """
    if not request.seeded:
        return {"Cache-Control": "no-store"}
    return {"Cache-Control": f"max-age={_FRESH_SECONDS}", "ETag": etag(service.fingerprint(request))}


def picture(drawn: Drawn, request: ImageRequest, headers: Headers) -> Response:
    """A response that is one image file."""
    (only,) = drawn.pictures
    return Response(
        only.data, media_type=f"image/{request.output.format}", headers=headers | image_headers(drawn)
    )


def image_headers(drawn: Drawn) -> Headers:
    """The headers of generated images: the first seed, the warning codes, the cache result and the time.

    `Server-Timing` (https://www.w3.org/TR/server-timing/) has the engine's share of the time as `draw`, in milliseconds.
    """
    headers = {"x-seed": str(drawn.pictures[0].seed)}
    if not drawn.cached:
        longest = max(each.seconds for each in drawn.pictures)
        headers["Server-Timing"] = f"draw;dur={1000 * longest:.1f}"
    if drawn.cached is not None:
        headers["x-cache"] = "hit" if drawn.cached else "miss"
    return headers | warning_headers(drawn.pictures[0].warnings)


def warning_headers(warnings: Iterable[RequestWarning]) -> Headers:
    """The header with the codes of warnings. HTTP's own header `Warning` is obsolete (RFC 9111, section 5.5)."""
    codes = ", ".join(dict.fromkeys(each.code for each in warnings))
    return {"x-warnings": codes} if codes else {}


def notes(warnings: Iterable[RequestWarning]) -> list[WarningNote]:
    """Convert warnings to the schema of JSON responses."""
    return [WarningNote(**asdict(each)) for each in warnings]


def inline(drawn: Drawn, request: ImageRequest) -> GenerationAnswer:
    """The JSON response with all images."""
    return GenerationAnswer(
        created=int(time.time()),
        data=[_image(each) for each in drawn.pictures],
        output_format=request.output.format,
        size=encode.size(drawn.pictures[0].data),
        warnings=notes(drawn.pictures[0].warnings),
    )


def base64_text(data: bytes) -> str:
    """Encode bytes as base64 text for JSON."""
    return base64.b64encode(data).decode()


def _image(each: Picture) -> GeneratedImage:
    return GeneratedImage(b64_json=base64_text(each.data), seed=each.seed)
