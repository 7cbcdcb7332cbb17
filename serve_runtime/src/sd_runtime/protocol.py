# SPDX-License-Identifier: Apache-2.0
"""HTTP requests and answers: `/imagine` as the published AWS pattern has it, `/v1/images` as OpenAI has it.

https://platform.openai.com/docs/api-reference/images/create; seed, steps, guidance and negative prompt are the
top-level extras that vLLM-Omni and SGLang agree on.
"""

import secrets
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from sd_runtime.config import Defaults, Limits
from sd_runtime.engine import ImageRequest
from sd_runtime.errors import InvalidRequest

MAX_SEED = 2**53 - 1
"""Largest seed: the largest integer that every JSON reader keeps exact."""

T = TypeVar("T")
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class ImagineQuery(BaseModel):
    """Query of `GET /imagine`."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(description="What to draw.", examples=["a red circle"])
    img_size: int | None = Field(default=None, description="Width and height in pixels, a multiple of 8.")
    seed: Seed | None = Field(default=None, description="Same seed, same picture; absent: a random one.")
    steps: int | None = Field(default=None, description="Denoising steps.")
    guidance: float | None = Field(default=None, description="How closely the picture follows the prompt.")
    negative_prompt: str = Field(default="", description="What to avoid.")


class GenerationBody(BaseModel):
    """Body of `POST /v1/images/generations`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str = Field(description="What to draw.", examples=["a red circle"])
    model: str | None = Field(default=None, description="As /v1/models names it; may be left out.")
    n: int = Field(default=1, description="Number of pictures; they use seed, seed + 1, ...")
    size: str = Field(default="auto", description="WIDTHxHEIGHT in pixels, or auto.", examples=["64x64"])
    response_format: Literal["b64_json"] = Field(default="b64_json", description="Pictures come inline.")
    output_format: Literal["png"] = Field(default="png", description="File format of the pictures.")
    negative_prompt: str = Field(default="", description="What to avoid.")
    num_inference_steps: int | None = Field(default=None, description="Denoising steps.")
    guidance_scale: float | None = Field(
        default=None, description="How closely a picture follows the prompt."
    )
    seed: Seed | None = Field(default=None, description="Same seed, same picture; absent: a random one.")
    user: str | None = Field(default=None, description="Ignored; OpenAI clients send it.")


class GeneratedImage(BaseModel):
    """One picture."""

    b64_json: str = Field(description="The PNG file, base64.")


class GenerationAnswer(BaseModel):
    """Answer of `POST /v1/images/generations`."""

    created: int = Field(description="Unix time in seconds.")
    data: list[GeneratedImage] = Field(description="The pictures.")


class ModelCard(BaseModel):
    """One entry of `GET /v1/models`."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "sd-runtime"


class ModelList(BaseModel):
    """Answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def error_body(
    message: str, *, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of every error, shaped as OpenAI's."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def any_seed() -> int:
    """A seed for who names none; 32 bits, so that seed + n stays exact everywhere."""
    return secrets.randbelow(2**32)


def from_imagine(query: ImagineQuery, limits: Limits, defaults: Defaults, seed: int) -> ImageRequest:
    """The request behind `GET /imagine`; `seed` is taken where the query has none.

    Raises:
        InvalidRequest: a parameter is out of bounds.
    """
    size = query.img_size
    request = ImageRequest(
        prompt=query.prompt,
        negative_prompt=query.negative_prompt,
        width=_or(size, defaults.width),
        height=_or(size, defaults.height),
        steps=_or(query.steps, defaults.steps),
        guidance=_or(query.guidance, defaults.guidance),
        seed=_or(query.seed, seed) or 0,
        count=1,
    )
    names = {"width": "img_size", "height": "img_size", "steps": "steps", "guidance": "guidance"}
    _check(request, limits, names)
    return request


def check_model(body: GenerationBody, served: str) -> None:
    """Raise InvalidRequest if the body asks for a model that is not served."""
    if body.model not in {None, served}:
        raise InvalidRequest(
            f"model: got {str(body.model)[:80]!r}: must be {served!r}, or left out",
            "model",
            "model_not_found",
        )


def from_body(body: GenerationBody, limits: Limits, defaults: Defaults, seed: int) -> ImageRequest:
    """The request behind `POST /v1/images/generations`; likewise."""
    width, height = _size(body.size, defaults)
    request = ImageRequest(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt,
        width=width,
        height=height,
        steps=_or(body.num_inference_steps, defaults.steps),
        guidance=_or(body.guidance_scale, defaults.guidance),
        seed=_or(body.seed, seed) or 0,
        count=body.n,
    )
    names = {
        "width": "size",
        "height": "size",
        "steps": "num_inference_steps",
        "guidance": "guidance_scale",
    }
    _check(request, limits, names)
    return request


def _or(value: T | None, default: T | None) -> T | None:
    return default if value is None else value


def _size(size: str, defaults: Defaults) -> tuple[int | None, int | None]:
    if size == "auto":
        return defaults.width, defaults.height
    width, separator, height = size.partition("x")
    if not (separator and width.isdecimal() and height.isdecimal() and len(size) <= 16):  # noqa: PLR2004
        raise InvalidRequest(
            f"size: got {size[:40]!r}: must be WIDTHxHEIGHT such as 512x512, or auto", "size"
        )
    return int(width), int(height)


def _check(request: ImageRequest, limits: Limits, names: dict[str, str]) -> None:
    """Check every bound; `names` says what the client calls a field."""
    _check_text("prompt", request.prompt, limits)
    _check_text("negative_prompt", request.negative_prompt, limits, may_be_blank=True)
    for field in ("width", "height"):
        _check_side(names[field], getattr(request, field), limits)
    pixels = (request.width or 0) * (request.height or 0)
    if pixels > limits.max_pixels:
        raise InvalidRequest(
            f"{names['width']}: got {request.width}x{request.height} = {pixels} pixels:"
            f" must be at most {limits.max_pixels} pixels",
            names["width"],
        )
    _check_number(names["steps"], request.steps, 1, limits.max_steps)
    _check_number(names["guidance"], request.guidance, 0, 50)
    _check_number("n", request.count, 1, limits.max_images)


def _check_text(name: str, text: str, limits: Limits, *, may_be_blank: bool = False) -> None:
    if not may_be_blank and not text.strip():
        raise InvalidRequest(f"{name}: got {len(text)} characters, all blank: must say what to draw", name)
    if len(text) > limits.max_prompt_characters:
        raise InvalidRequest(
            f"{name}: got {len(text)} characters: must be at most {limits.max_prompt_characters}", name
        )
    if any("\ud800" <= character <= "\udfff" for character in text):  # JSON can spell them
        raise InvalidRequest(
            f"{name}: got {len(text)} characters, one of them half of a surrogate pair: must be Unicode", name
        )


def _check_side(name: str, value: int | None, limits: Limits) -> None:
    if value is None:
        return
    if value < 64 or value > limits.max_side or value % 8:  # noqa: PLR2004 - eight latent cells at least
        raise InvalidRequest(
            f"{name}: got {value}: must be a multiple of 8 from 64 to {limits.max_side} pixels", name
        )


def _check_number(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:  # also refuses NaN
        raise InvalidRequest(f"{name}: got {value}: must be from {least} to {most}", name)
