# SPDX-License-Identifier: Apache-2.0
"""Warnings about fields of a request that have no effect, or not the effect that other servers give them (pure).

The request is still generated; its response carries the warnings. `docs/api.md` lists the codes.
"""

from collections.abc import Iterator

from sd_runtime.engine.interface import ImageRequest, RequestWarning
from sd_runtime.engine.prompts import lora_tags
from sd_runtime.engine.prompts.syntax import has_weights


def of_request(request: ImageRequest, *, guided: bool) -> tuple[RequestWarning, ...]:
    """Return all warnings that follow from the request itself.

    Args:
        request: the request, with every default filled in.
        guided: whether the model computes the negative prompt.
    """
    return (
        *_of_text("prompt", request.prompt, request),
        *_of_negative(request, guided=guided),
        *_of_rescaling(request, guided=guided),
    )


def without_previews(request: ImageRequest, reason: str) -> RequestWarning:
    """Return the warning that the request sets `partial_images`, but receives no partial image."""
    return RequestWarning(
        "partial_images_ignored",
        "partial_images",
        f"partial_images: got {request.output.previews}: no partial image is sent, because {reason}",
    )


def cut_short(param: str, tokens: int, limit: int, tokenizer: str) -> RequestWarning:
    """Return the warning that a text has more tokens than the `limit` that a pipeline's tokenizer reads."""
    return RequestWarning(
        "prompt_truncated",
        param,
        f"{param}: got {tokens} tokens: this model's {tokenizer} reads the first {limit} and ignores the rest",
    )


def _of_negative(request: ImageRequest, *, guided: bool) -> Iterator[RequestWarning]:
    text = request.negative_prompt
    if guided:
        yield from _of_text("negative_prompt", text, request)
    elif text:
        yield RequestWarning(
            "negative_prompt_ignored",
            "negative_prompt",
            f"negative_prompt: got {len(text)} characters: they have no effect, because this model uses no negative"
            f" prompt at a guidance of {request.guidance}",
        )


def _of_rescaling(request: ImageRequest, *, guided: bool) -> Iterator[RequestWarning]:
    if request.guidance_rescale and not guided:
        yield RequestWarning(
            "guidance_rescale_ignored",
            "guidance_rescale",
            f"guidance_rescale: got {request.guidance_rescale}: it has no effect, because this model has nothing to"
            f" rescale at a guidance of {request.guidance}",
        )


def _of_text(name: str, text: str, request: ImageRequest) -> Iterator[RequestWarning]:
    if lora_tags.found_in(text):
        yield RequestWarning(
            "lora_tag_ignored",
            name,
            f"{name}: contains <lora:...>, which is read as text and loads no LoRA; use the field lora, or the tag"
            " in prompt with prompt_syntax weighted",
        )
    if request.prompt_syntax == "plain" and has_weights(text):
        yield RequestWarning(
            "weights_ignored",
            name,
            f"{name}: contains weights such as (word:1.3) or BREAK, which prompt_syntax plain reads as text; set"
            " prompt_syntax to weighted to apply them",
        )
