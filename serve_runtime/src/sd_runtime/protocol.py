# SPDX-License-Identifier: Apache-2.0
"""HTTP requests and answers: `/imagine` as the published AWS pattern has it, `/v1/images` as OpenAI has it.

https://platform.openai.com/docs/api-reference/images/create; seed, steps, guidance and negative prompt are the
top-level extras that vLLM-Omni and SGLang agree on. Here are names and types only; what a service allows at the
moment is checked by `intake`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from sd_runtime.config import PromptSyntax, SchedulerName
from sd_runtime.engine import FileFormat

MAX_SEED = 2**53 - 1
"""Largest seed: the largest integer that every JSON reader keeps exact."""

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Percent = Annotated[int, Field(ge=0, le=100)]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]

_LORA_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_NO_EFFECT = "No effect; accepted since OpenAI clients send it."
_SAME_SEED = "Same seed, same picture; absent: a random one."


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Loras = Annotated[list[str], BeforeValidator(_as_list), WithJsonSchema(_LORA_SCHEMA)]


class ImagineQuery(BaseModel):
    """Query of `GET /imagine`."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(description="What to draw.", examples=["a red circle on a white background"])
    img_size: int | None = Field(
        default=None, description="Width and height in pixels, a multiple of 8.", examples=[64]
    )
    seed: Seed | None = Field(default=None, description=_SAME_SEED, examples=[7])
    steps: int | None = Field(default=None, description="Denoising steps.", examples=[15])
    guidance: float | None = Field(
        default=None, description="How closely the picture follows the prompt.", examples=[4.0]
    )
    negative_prompt: str = Field(default="", description="What to avoid.", examples=["text"])


class GenerationBody(BaseModel):
    """Body of `POST /v1/images/generations` and of `POST /v1/jobs`; null is as good as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"prompt": "a red circle on a white background"},
                {"prompt": "a blue square", "size": "64x64", "n": 2, "seed": 7, "num_inference_steps": 15},
            ]
        },
    )

    prompt: str = Field(description="What to draw.")
    model: str | None = Field(default=None, description="As /v1/models names it; may be left out.")
    n: int | None = Field(
        default=None, description="Number of pictures, 1 if absent; they use seed, seed + 1, ..."
    )
    size: str | None = Field(
        default=None, description="WIDTHxHEIGHT in pixels, multiples of 8, or auto.", examples=["64x64"]
    )
    response_format: Literal["b64_json"] | None = Field(
        default=None,
        description="Pictures come inline; with `Accept: image/png` one comes as the answer itself.",
    )
    output_format: FileFormat | None = Field(
        default=None, description="File format of the pictures; png if absent."
    )
    output_compression: Percent | None = Field(
        default=None, description="Quality of jpeg and webp in percent, 100 if absent; png is lossless."
    )
    stream: bool | None = Field(
        default=None, description="Send pictures as server-sent events while they come into being."
    )
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = Field(
        default=None, description="Unfinished pictures to send on the way; needs stream."
    )
    negative_prompt: str | None = Field(default=None, description="What to avoid.")
    prompt_syntax: PromptSyntax | None = Field(
        default=None,
        description="How both prompts are read: `plain`, or `weighted` with (word:1.3), ((word)), [word] and BREAK;"
        " the service's own if absent.",
    )
    num_inference_steps: int | None = Field(default=None, description="Denoising steps.")
    guidance_scale: float | None = Field(
        default=None, description="How closely a picture follows the prompt; at most 1 turns guidance off."
    )
    seed: Seed | None = Field(default=None, description=_SAME_SEED)
    lora: Loras | None = Field(
        default=None, description="Name of a LoRA, or several, as /v1/models lists them."
    )
    scheduler: SchedulerName | None = Field(
        default=None, description="Noise scheduler; the service's own if absent."
    )
    quality: Quality | None = Field(default=None, description=_NO_EFFECT)
    background: Literal["auto", "opaque"] | None = Field(
        default=None, description="Pictures are always opaque."
    )
    moderation: Literal["auto", "low"] | None = Field(default=None, description=_NO_EFFECT)
    style: Literal["vivid", "natural"] | None = Field(default=None, description=_NO_EFFECT)
    user: str | None = Field(default=None, description=_NO_EFFECT)
    safety_identifier: str | None = Field(default=None, description=_NO_EFFECT)


class GeneratedImage(BaseModel):
    """One picture."""

    b64_json: str = Field(description="The file, base64.")
    seed: int = Field(description="What makes this picture again.")


class WarningNote(BaseModel):
    """A part of the request that has no effect; the pictures are drawn all the same."""

    code: str = Field(description="One word for scripts; the documentation lists them.")
    param: str = Field(description="The field that holds the part.")
    message: str = Field(description="Field, value and rule.")


class GenerationAnswer(BaseModel):
    """Answer of `POST /v1/images/generations`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "created": 1795545600,
                "data": [{"b64_json": "iVBORw0KGgo...", "seed": 7}],
                "output_format": "png",
                "size": "64x64",
                "warnings": [],
            }
        }
    )

    created: int = Field(description="Unix time in seconds.")
    data: list[GeneratedImage] = Field(description="The pictures.")
    output_format: FileFormat = Field(description="File format of the pictures.")
    size: str = Field(description="WIDTHxHEIGHT in pixels.")
    warnings: list[WarningNote] = Field(default=[], description="What of the request has no effect.")


class ModelCard(BaseModel):
    """One entry of `GET /v1/models`; what a replica knows is null while none runs."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "bundled://shapes",
                "object": "model",
                "created": 0,
                "owned_by": "sd-runtime",
                "revision": None,
                "loras": ["ink"],
                "limits": {"max_side": 1024, "max_steps": 100, "max_images": 4},
                "defaults": {
                    "width": 64,
                    "height": 64,
                    "steps": 15,
                    "guidance": 4.0,
                    "scheduler": "Euler",
                    "prompt_syntax": "plain",
                },
                "dtype": "float32",
                "device": "cpu",
                "optimizations": {
                    "channels_last": False,
                    "fuse_qkv": False,
                    "compile": False,
                    "cuda_graphs": False,
                },
            }
        }
    )

    id: str
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Unix time in seconds; not known, so 0.")
    owned_by: str = "sd-runtime"
    revision: str | None = Field(default=None, description="Commit of the weights.")
    loras: list[str] = Field(default=[], description="Names that requests may use.")
    limits: dict[str, int] = Field(default={}, description="Bounds of a request, as they are now.")
    defaults: dict[str, Any] | None = Field(
        default=None, description="What a request gets that does not say."
    )
    dtype: str | None = Field(default=None, description="Number format of the computation.")
    device: str | None = Field(default=None, description="Where it computes.")
    optimizations: dict[str, bool] | None = Field(default=None, description="Speed switches in effect.")


class ModelList(BaseModel):
    """Answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def error_body(
    message: str, *, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of every error, shaped as OpenAI's."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
