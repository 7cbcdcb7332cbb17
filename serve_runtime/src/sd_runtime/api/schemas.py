# SPDX-License-Identifier: Apache-2.0
"""Schemas of HTTP requests and responses: `/imagine` follows the published AWS pattern, `/v1/images` follows OpenAI.

OpenAI's reference is https://platform.openai.com/docs/api-reference/images/create. Seed, steps, guidance and negative
prompt are additional top-level fields, with the names that vLLM-Omni and SGLang share. This module has names and types
only; `validation` checks the current limits of the service.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from sd_runtime.config import PromptSyntax, SchedulerName, Sigmas, TimestepSpacing
from sd_runtime.engine.interface import FileFormat

MAX_SEED = 2**53 - 1
"""The largest seed: the largest integer that every JSON parser reads exactly."""

RANDOM_SEED = -1
"""This seed requests a random seed, like an absent field. Some clients cannot leave the field out."""

Seed = Annotated[int, Field(ge=RANDOM_SEED, le=MAX_SEED)]
Percent = Annotated[int, Field(ge=0, le=100)]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]

_NO_EFFECT = "This field has no effect. It is accepted because OpenAI clients send it."
_SAME_SEED = "The same seed generates the same image. If -1 or absent, the service chooses a random seed."


class LoraWish(BaseModel):
    """A LoRA and its strength."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(description="A name in the list `loras` of `GET /v1/models`.")
    strength: Annotated[float, Field(ge=-4, le=4)] | None = Field(
        default=None,
        description="1 applies the LoRA as it was trained, 0 turns it off. If absent, the service's strength for it.",
    )


def _as_wishes(value: Any) -> Any:
    """Convert a name, an object or a list of both to a list of objects."""
    return [_as_wish(each) for each in (value if isinstance(value, list) else [value])]


def _as_wish(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict):
        raise PydanticCustomError("lora", "must be a name, or an object with name and strength")
    return value


_WISH_SCHEMA = {"anyOf": [{"type": "string"}, LoraWish.model_json_schema()]}
_LORA_SCHEMA = {"anyOf": [*_WISH_SCHEMA["anyOf"], {"type": "array", "items": _WISH_SCHEMA}]}
Loras = Annotated[list[LoraWish], BeforeValidator(_as_wishes), WithJsonSchema(_LORA_SCHEMA)]


class ImagineQuery(BaseModel):
    """Query parameters of `GET /imagine`."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(
        description="Description of the image.", examples=["a red circle on a white background"]
    )
    img_size: int | None = Field(
        default=None, description="Width and height in pixels, a multiple of 8.", examples=[64]
    )
    seed: Seed | None = Field(default=None, description=_SAME_SEED, examples=[7])
    steps: int | None = Field(default=None, description="Number of denoising steps.", examples=[15])
    guidance: float | None = Field(
        default=None,
        description="Guidance scale: how closely the image follows the prompt.",
        examples=[4.0],
    )
    negative_prompt: str = Field(
        default="", description="Description of what the image must not show.", examples=["text"]
    )


class GenerationBody(BaseModel):
    """Body of `POST /v1/images/generations` and `POST /v1/jobs`. A field that is null counts as absent."""

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

    prompt: str = Field(description="Description of the image.")
    model: str | None = Field(
        default=None,
        description="The model's `id` in `GET /v1/models`, or absent. Any other value is an error.",
    )
    n: int | None = Field(
        default=None, description="Number of images; 1 if absent. The images use seed, seed + 1, and so on."
    )
    size: str | None = Field(
        default=None,
        description="WIDTHxHEIGHT in pixels, both multiples of 8. If `auto` or absent, the service's default size.",
        examples=["64x64"],
    )
    response_format: Literal["b64_json"] | None = Field(
        default=None,
        description="The JSON response contains the images in base64. With `Accept: image/png` the response is one"
        " image file instead.",
    )
    output_format: FileFormat | None = Field(
        default=None, description="File format of the images; png if absent."
    )
    output_compression: Percent | None = Field(
        default=None,
        description="Quality of jpeg and webp in percent; 100 if absent. It has no effect on png, which is lossless.",
    )
    stream: bool | None = Field(
        default=None, description="Whether to send images and progress as server-sent events."
    )
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = Field(
        default=None,
        description="Number of unfinished images to send before each finished one; requires `stream: true`.",
    )
    negative_prompt: str | None = Field(
        default=None, description="Description of what the image must not show."
    )
    prompt_syntax: PromptSyntax | None = Field(
        default=None,
        description="How both prompts are read: `plain`, or `weighted` with (word:1.3), ((word)), [word] and BREAK."
        " If absent, the service's default.",
    )
    num_inference_steps: int | None = Field(default=None, description="Number of denoising steps.")
    guidance_scale: float | None = Field(
        default=None,
        description="How closely an image follows the prompt. A value of 1 or less turns guidance off.",
    )
    seed: Seed | None = Field(default=None, description=_SAME_SEED)
    lora: Loras | None = Field(
        default=None,
        description="One LoRA or a list of LoRAs. Each one is a name, or an object with name and strength.",
        examples=["ink", ["ink", {"name": "oil", "strength": 0.6}]],
    )
    scheduler: SchedulerName | None = Field(
        default=None, description="Noise scheduler. If absent, the service's default."
    )
    sigmas: Sigmas | None = Field(
        default=None,
        description="Curve of the noise levels, for schedulers with this option. If absent, the model's own curve.",
    )
    timestep_spacing: TimestepSpacing | None = Field(
        default=None,
        description="Which timesteps of the training the steps use. If absent, the model's own setting.",
    )
    rescale_betas_zero_snr: bool | None = Field(
        default=None,
        description="Whether the first step starts from pure noise (zero terminal SNR). If absent, the model's own"
        " setting.",
    )
    guidance_rescale: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="Strength of the correction against overexposure by guidance, from 0 to 1; 0 if absent.",
    )
    clip_skip: Annotated[int, Field(ge=0, le=32)] | None = Field(
        default=None,
        description="Number of last text encoder layers that are skipped for the prompt, as diffusers counts them: one"
        " less than in AUTOMATIC1111. The negative prompt uses all layers.",
    )
    quality: Quality | None = Field(default=None, description=_NO_EFFECT)
    background: Literal["auto", "opaque"] | None = Field(
        default=None, description="This field has no effect: images are always opaque."
    )
    moderation: Literal["auto", "low"] | None = Field(default=None, description=_NO_EFFECT)
    style: Literal["vivid", "natural"] | None = Field(default=None, description=_NO_EFFECT)
    user: str | None = Field(default=None, description=_NO_EFFECT)
    safety_identifier: str | None = Field(default=None, description=_NO_EFFECT)


class GeneratedImage(BaseModel):
    """One generated image."""

    b64_json: str = Field(description="The image file in base64.")
    seed: int = Field(description="A request with this seed generates the same image.")


class WarningNote(BaseModel):
    """A part of the request that has no effect. The images are generated without it."""

    code: str = Field(description="A code for scripts; docs/api.md lists all codes.")
    param: str = Field(description="The field that has no effect, or contains the part that has none.")
    message: str = Field(description="The field, the value and the reason.")


class GenerationAnswer(BaseModel):
    """Response of `POST /v1/images/generations`."""

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
    data: list[GeneratedImage] = Field(description="The generated images.")
    output_format: FileFormat = Field(description="File format of the images.")
    size: str = Field(description="WIDTHxHEIGHT in pixels.")
    warnings: list[WarningNote] = Field(default=[], description="Parts of the request that have no effect.")


class ModelCard(BaseModel):
    """One entry of `GET /v1/models`. Fields that come from a replica are null while no replica is running."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "bundled://shapes",
                "object": "model",
                "created": 0,
                "owned_by": "sd-runtime",
                "revision": None,
                "loras": ["ink"],
                "schedulers": {"Euler": ["sigmas", "timestep_spacing", "rescale_betas_zero_snr"]},
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
                "quantization": None,
                "device": "cpu",
                "optimizations": {
                    "channels_last": False,
                    "fuse_qkv": False,
                    "compile": False,
                    "cuda_graphs": False,
                },
                "batching": "step",
            }
        }
    )

    id: str
    object: Literal["model"] = "model"
    created: int = Field(
        default=0, description="Unix time in seconds. It is always 0, since it is not known."
    )
    owned_by: str = "sd-runtime"
    revision: str | None = Field(default=None, description="Revision of the weights in the configuration.")
    loras: list[str] = Field(default=[], description="Names of the LoRAs that requests may use.")
    schedulers: dict[str, list[str]] | None = Field(
        default=None, description="Schedulers that requests may use, each with the options that it supports."
    )
    limits: dict[str, int] = Field(default={}, description="Current limits of a request.")
    defaults: dict[str, Any] | None = Field(
        default=None, description="Values that the service uses for fields that are absent from a request."
    )
    dtype: str | None = Field(default=None, description="Data type of the computation.")
    quantization: str | None = Field(
        default=None, description="Number format of quantized weights; null if no weights are quantized."
    )
    device: str | None = Field(default=None, description="Device of the computation.")
    optimizations: dict[str, bool] | None = Field(
        default=None, description="Optimizations, and whether each one is in effect."
    )
    batching: Literal["step", "none"] | None = Field(
        default=None,
        description="step: images of many requests share each denoising step. none: the replica generates one image"
        " at a time.",
    )


class ModelList(BaseModel):
    """Response of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def error_body(
    message: str, *, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of an error response, in OpenAI's format."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
