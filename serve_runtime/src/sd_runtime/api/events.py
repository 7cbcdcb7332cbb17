# SPDX-License-Identifier: Apache-2.0
"""Images as server-sent events, in OpenAI's format (https://platform.openai.com/docs/api-reference/images-streaming).

The stream also contains progress as comments, which clients ignore. They keep the connection open, because proxies
often close a connection that is silent for a minute.
"""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from sd_runtime.api import errors
from sd_runtime.api.responses import base64_text, notes
from sd_runtime.api.service import Service
from sd_runtime.engine.interface import ImageRequest, Picture, Preview, Progress, Update
from sd_runtime.engine.postprocess import encode

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would buffer the events
EXAMPLE = (
    'event: image_generation.partial_image\ndata: {"type": "image_generation.partial_image", "b64_json": "...",'
    ' "partial_image_index": 0}\n\nevent: image_generation.completed\ndata: {"type": "image_generation.completed",'
    ' "b64_json": "..."}\n\n'
)
# OpenAI's clients require this field. This service does not count tokens.
_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}


async def stream(service: Service, request: ImageRequest) -> AsyncIterator[str]:
    """Start a request and return its events. An immediate error is raised here, so that it can set the HTTP status."""
    updates = service.stream(request)
    try:
        first = await anext(updates)
    except BaseException:
        await updates.aclose()
        raise
    return _events(first, updates, request)


async def _events(
    first: Update, updates: AsyncGenerator[Update], request: ImageRequest
) -> AsyncGenerator[str]:
    async with aclosing(updates):
        yield _event(first, request)
        try:
            async for update in updates:
                yield _event(update, request)
        except Exception as error:  # noqa: BLE001 - the status is already sent, so the error becomes an event
            yield _named("error", errors.problem(error, request.id).body)


def _event(update: Update, request: ImageRequest) -> str:
    if isinstance(update, Progress):
        return f": step {update.step} of {update.steps}, {update.ahead} images ahead in the queue\n\n"
    if isinstance(update, Preview):
        name = "image_generation.partial_image"
        return _named(name, {**_about(name, update, request), "partial_image_index": update.number})
    name = "image_generation.completed"
    return _named(name, {**_about(name, update, request), "usage": _USAGE, "seed": update.seed})


def _about(name: str, update: Preview | Picture, request: ImageRequest) -> dict[str, Any]:
    """The fields that both events share. `index` (the number of the image) and `warnings` are additions to OpenAI's."""
    return {
        "type": name,
        "b64_json": base64_text(update.data),
        "created_at": int(time.time()),
        "size": encode.size(update.data),
        "quality": "auto",
        "background": "opaque",
        "output_format": request.output.format,
        "index": update.index,
        "warnings": [each.model_dump() for each in notes(update.warnings)],
    }


def _named(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
