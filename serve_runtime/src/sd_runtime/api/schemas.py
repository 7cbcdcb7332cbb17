# SPDX-License-Identifier: Apache-2.0
"""HTTP requests and answers: `/imagine` as the published AWS pattern has it, `/v1/images` as OpenAI has it.

https://platform.openai.com/docs/api-reference/images/create; seed, steps, guidance and negative prompt are the
top-level extras that vLLM-Omni and SGLang agree on. Here are names and types only; what a service allows at the
moment is checked by `intake`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from sd_runtime.config import PromptSyntax, SchedulerName, Sigmas, TimestepSpacing
from sd_runtime.engine.interface import FileFormat

MAX_SEED = 2**53 - 1
"""Largest seed: the largest integer that every JSON reader keeps exact."""

RANDOM_SEED = -1
"""As good as no seed: some clients cannot leave the field out."""

Seed = Annotated[int, Field(ge=RANDOM_SEED, le=MAX_SEED)]
Percent = Annotated[int, Field(ge=0, le=100)]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]

_NO_EFFECT = "No effect; accepted since OpenAI clients send it."
_SAME_SEED = "Same seed, same picture; -1 or absent: a random one."


class LoraWish(BaseModel):
    """A LoRA and how strongly it acts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(description="As /v1/models lists it.")
    strength: Annotated[float, Field(ge=-4, le=4)] | None = Field(
        default=None, description="1 is as it was trained, 0 is off; the service's own if absent."
    )


def _as_wishes(value: Any) -> Any:
    """A name, an object or a list of both, as a list of objects."""
    return [_as_wish(each) for each in (value if isinstance(value, list) else [value])]


def _as_wish(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict):
        raise PydanticCustomError("lora", "must be a name, or an object of name and strength")
    return value


_WISH_SCHEMA = {"anyOf": [{"type": "string"}, LoraWish.model_json_schema()]}
_LORA_SCHEMA = {"anyOf": [*_WISH_SCHEMA["anyOf"], {"type": "array", "items": _WISH_SCHEMA}]}
Loras = Annotated[list[LoraWish], BeforeValidator(_as_wishes), WithJsonSchema(_LORA_SCHEMA)]


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
        default=None,
        description="Name of a LoRA, or name and strength, or several of them.",
        examples=["ink", ["ink", {"name": "oil", "strength": 0.6}]],
    )
    scheduler: SchedulerName | None = Field(
        default=None, description="Noise scheduler; the service's own if absent."
    )
    sigmas: Sigmas | None = Field(
        default=None,
        description="Curve of the noise levels, where the scheduler offers it; the model's own if absent.",
    )
    timestep_spacing: TimestepSpacing | None = Field(
        default=None,
        description="Where the steps lie among the trained timesteps; the model's own if absent.",
    )
    rescale_betas_zero_snr: bool | None = Field(
        default=None, description="Start from pure noise (zero terminal SNR); the model's own if absent."
    )
    guidance_rescale: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="How far guidance is kept from overexposing, 0 to 1; 0 if absent."
    )
    clip_skip: Annotated[int, Field(ge=0, le=32)] | None = Field(
        default=None,
        description="Last layers of the text encoders that the prompt leaves out, as diffusers counts them: one less"
        " than AUTOMATIC1111's. The negative prompt passes all layers.",
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
    created: int = Field(default=0, description="Unix time in seconds; not known, so 0.")
    owned_by: str = "sd-runtime"
    revision: str | None = Field(default=None, description="Commit of the weights.")
    loras: list[str] = Field(default=[], description="Names that requests may use.")
    schedulers: dict[str, list[str]] | None = Field(
        default=None, description="Schedulers that requests may name, and which options each has."
    )
    limits: dict[str, int] = Field(default={}, description="Bounds of a request, as they are now.")
    defaults: dict[str, Any] | None = Field(
        default=None, description="What a request gets that does not say."
    )
    dtype: str | None = Field(default=None, description="Number format of the computation.")
    quantization: str | None = Field(
        default=None, description="Number format of quantized weights; null: no weights are quantized."
    )
    device: str | None = Field(default=None, description="Where it computes.")
    optimizations: dict[str, bool] | None = Field(default=None, description="Speed switches in effect.")
    batching: Literal["step", "none"] | None = Field(
        default=None,
        description="step: images of many requests share each denoising step; none: one image at a time.",
    )


class ModelList(BaseModel):
    """Answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def error_body(
    message: str, *, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of every error, shaped as OpenAI's."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
