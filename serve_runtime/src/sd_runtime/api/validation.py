# SPDX-License-Identifier: Apache-2.0
"""Conversion of a client's input to a valid ImageRequest. This is the only place that applies limits and defaults."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from sd_runtime.api.schemas import MAX_SEED, RANDOM_SEED, GenerationBody, ImagineQuery, LoraWish
from sd_runtime.config import Defaults, Limits, LiveConfig, RuntimeConfig
from sd_runtime.engine import schedule_options
from sd_runtime.engine.interface import FileFormat, ImageRequest, LoraStrengths, Output, check_loras
from sd_runtime.engine.prompts import lora_tags, syntax
from sd_runtime.engine.schedule_options import ScheduleOptions
from sd_runtime.errors import InvalidRequest

T = TypeVar("T")

_LONGEST_SIZE = 16
_LONGEST_NUMBER = 20
_SMALLEST_SIDE = 64  # eight latent cells
_IMAGINE_NAMES = {"width": "img_size", "height": "img_size", "steps": "steps", "guidance": "guidance"}
_BODY_NAMES = {
    "width": "size",
    "height": "size",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
}


@dataclass(frozen=True)
class RequestPolicy:
    """The current limits and defaults of a service.

    Attributes:
        model: URI of the served model.
        loras: names of the LoRAs that requests may use.
    """

    limits: Limits
    defaults: Defaults
    model: str
    loras: tuple[str, ...] = ()


def policy(config: RuntimeConfig, live: LiveConfig) -> RequestPolicy:
    """The terms of a configuration."""
    return RequestPolicy(
        live.limits, live.defaults, config.model.uri, tuple(lora.name for lora in config.loras)
    )


def any_seed() -> int:
    """A random seed, used when the client sends none. It has 32 bits, so that seed + n is exact in every client."""
    return secrets.randbelow(2**32)


def from_imagine(query: ImagineQuery, policy: RequestPolicy, seed: int, request_id: str = "") -> ImageRequest:
    """Build the request of `GET /imagine`. `seed` is used if the query has none.

    Raises:
        InvalidRequest: a parameter breaks a rule.
    """
    request = ImageRequest(
        prompt=query.prompt,
        negative_prompt=query.negative_prompt,
        width=_or(query.img_size, policy.defaults.width),
        height=_or(query.img_size, policy.defaults.height),
        steps=_or(query.steps, policy.defaults.steps),
        guidance=_or(query.guidance, policy.defaults.guidance),
        seed=_seed(query.seed, seed),
        prompt_syntax=policy.defaults.prompt_syntax,
        id=request_id,
        seeded=_is_chosen(query.seed),
    )
    request = _with_tags(request)
    check_loras(request, policy.loras)
    _check(request, policy.limits, _IMAGINE_NAMES)
    return request


def from_body(
    body: GenerationBody,
    policy: RequestPolicy,
    seed: int,
    request_id: str = "",
    file_format: FileFormat | None = None,
) -> ImageRequest:
    """Build the request of `POST /v1/images/generations` and `POST /v1/jobs`.

    Args:
        body: the body of the HTTP request.
        policy: the limits and defaults of the service.
        seed: the seed that is used if the body has none.
        request_id: the id of the HTTP request.
        file_format: the file format that is used if the body has none.

    Raises:
        InvalidRequest: a field breaks a rule.
    """
    _check_model(body.model, policy.model)
    _check_previews(body)
    width, height = _size(body.size or "auto", policy.defaults)
    request = ImageRequest(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt or "",
        width=width,
        height=height,
        steps=_or(body.num_inference_steps, policy.defaults.steps),
        guidance=_or(body.guidance_scale, policy.defaults.guidance),
        seed=_seed(body.seed, seed),
        count=1 if body.n is None else body.n,
        scheduler=body.scheduler,
        schedule=ScheduleOptions(body.sigmas, body.timestep_spacing, body.rescale_betas_zero_snr),
        guidance_rescale=body.guidance_rescale or 0.0,
        clip_skip=body.clip_skip,
        loras=tuple(each.name for each in body.lora or ()),
        lora_strengths=_lora_strengths(body.lora or []),
        prompt_syntax=body.prompt_syntax or policy.defaults.prompt_syntax,
        output=_output(body, file_format),
        id=request_id,
        seeded=_is_chosen(body.seed),
    )
    request = _with_tags(request)
    check_loras(request, policy.loras)
    if request.scheduler is not None:
        schedule_options.check(
            request.scheduler, schedule_options.OFFERED[request.scheduler], request.schedule
        )
    _check(request, policy.limits, _BODY_NAMES)
    return request


def _or(value: T | None, default: T | None) -> T | None:
    return default if value is None else value


def _is_chosen(seed: int | None) -> bool:
    """Whether the client chose the seed. -1 requests a random seed, as in AUTOMATIC1111."""
    return seed is not None and seed != RANDOM_SEED


def _seed(given: int | None, random: int) -> int:
    return random if given is None or given == RANDOM_SEED else given


def _lora_strengths(wanted: list[LoraWish]) -> LoraStrengths:
    return _chosen((each.name, each.strength) for each in wanted)


def _chosen(strengths: Iterable[tuple[str, float | None]]) -> LoraStrengths:
    return tuple(sorted((name, each) for name, each in strengths if each is not None))


def _with_tags(request: ImageRequest) -> ImageRequest:
    """Move the LoRA tags of a weighted prompt to the request's LoRAs. A plain prompt stays as it is."""
    if request.prompt_syntax == "plain":
        return request
    prompt, tags = lora_tags.taken_out(request.prompt)
    return replace(
        request,
        prompt=prompt,
        loras=(*request.loras, *(name for name, _ in tags)),
        lora_strengths=_chosen([*request.lora_strengths, *tags]),
    )


def _output(body: GenerationBody, file_format: FileFormat | None) -> Output:
    return Output(
        format=body.output_format or file_format or "png",
        compression=100 if body.output_compression is None else body.output_compression,
        previews=body.partial_images or 0 if body.stream else 0,
    )


def _check_model(wanted: str | None, served: str) -> None:
    if wanted not in {None, served}:
        message = f"model: got {str(wanted)[:80]!r}: must be {served!r} or absent"
        raise InvalidRequest(message, "model", "model_not_found")


def _check_previews(body: GenerationBody) -> None:
    if body.partial_images and not body.stream:
        message = f"partial_images: got {body.partial_images}: must be 0 unless stream is true"
        raise InvalidRequest(message, "partial_images")


def _size(size: str, defaults: Defaults) -> tuple[int | None, int | None]:
    if size == "auto":
        return defaults.width, defaults.height
    width, separator, height = size.partition("x")
    if not (
        separator
        and size.isascii()
        and width.isdecimal()
        and height.isdecimal()
        and len(size) <= _LONGEST_SIZE
    ):
        raise InvalidRequest(
            f"size: got {size[:40]!r}: must be WIDTHxHEIGHT such as 512x512, or auto", "size"
        )
    return int(width), int(height)


def _check(request: ImageRequest, limits: Limits, names: dict[str, str]) -> None:
    """Check all limits. `names` maps each field to the name that the client uses for it."""
    _check_text("prompt", request.prompt, limits)
    _check_text("negative_prompt", request.negative_prompt, limits, may_be_blank=True)
    for name, text in (("prompt", request.prompt), ("negative_prompt", request.negative_prompt)):
        syntax.parse(name, text, request.prompt_syntax)
    for field in ("width", "height"):
        _check_side(names[field], getattr(request, field), limits)
    _check_pixels(names["width"], request, limits)
    _check_number(names["steps"], request.steps, 1, limits.max_steps)
    _check_number(names["guidance"], request.guidance, 0, 50)
    _check_number("n", request.count, 1, limits.max_images)
    if request.seed + request.count - 1 > MAX_SEED:
        raise InvalidRequest(
            f"seed: got {request.seed} for {request.count} images: seed + n - 1 must be at most {MAX_SEED}",
            "seed",
        )


def _check_text(name: str, text: str, limits: Limits, *, may_be_blank: bool = False) -> None:
    if not may_be_blank and not text.strip():
        raise InvalidRequest(f"{name}: got {len(text)} characters, all blank: must describe the image", name)
    if len(text) > limits.max_prompt_characters:
        raise InvalidRequest(
            f"{name}: got {len(text)} characters: must be at most {limits.max_prompt_characters}", name
        )
    if any("\ud800" <= character <= "\udfff" for character in text):  # JSON escapes can produce them
        raise InvalidRequest(
            f"{name}: got {len(text)} characters with half of a surrogate pair: must be valid Unicode", name
        )


def _check_side(name: str, value: int | None, limits: Limits) -> None:
    if value is None:
        return
    if value < _SMALLEST_SIDE or value > limits.max_side or value % 8:
        raise InvalidRequest(
            f"{name}: got {_short(value)}: must be a multiple of 8 from 64 to {limits.max_side} pixels", name
        )


def _check_pixels(name: str, request: ImageRequest, limits: Limits) -> None:
    pixels = (request.width or 0) * (request.height or 0)
    if pixels > limits.max_pixels:
        raise InvalidRequest(
            f"{name}: got {request.width}x{request.height} = {pixels} pixels:"
            f" must be at most {limits.max_pixels} pixels",
            name,
        )


def _check_number(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:  # also refuses NaN
        raise InvalidRequest(f"{name}: got {_short(value)}: must be from {least} to {most}", name)


def _short(value: float) -> str:
    """A number as short text. JSON allows integers with thousands of digits."""
    text = str(value)
    return text if len(text) <= _LONGEST_NUMBER else f"{text[:_LONGEST_NUMBER]}... ({len(text)} digits)"
