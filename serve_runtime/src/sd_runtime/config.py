# SPDX-License-Identifier: Apache-2.0
"""The configuration that the operator sends: `args` and `user_config` of the Serve application.

A replica is built from a RuntimeConfig, and a change of it restarts the replica. A running replica applies a new
LiveConfig without a restart. tests/contract checks the operator's `serve_config` against these models.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DType = Literal["float16", "bfloat16", "float32"]
Quantization = Literal["fp8"]
SchedulerName = Literal[
    "Euler",
    "EulerAncestral",
    "DDIM",
    "DDPM",
    "DPMSolverMultistep",
    "UniPC",
    "PNDM",
    "Heun",
    "LCM",
    "DPMSolverMultistepSDE",
    "DPMSolverSinglestep",
    "DPMSolverSinglestepSDE",
]
Sigmas = Literal["karras", "exponential", "beta"]
TimestepSpacing = Literal["leading", "trailing", "linspace"]
PromptSyntax = Literal["plain", "weighted"]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[a-z0-9.:\[\]-]+)$", max_length=255)]
"""Scheme, host and port of a web page, as browsers send them in the header Origin. `*` matches every origin."""
Side = Annotated[int, Field(ge=64, le=4096, multiple_of=8)]


class Config(BaseModel):
    """Base of all parts of the configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(Config):
    """The weights, their data type and their scheduler.

    Without a dtype a GPU computes in its best 16-bit format, and a CPU in float32.
    """

    uri: str = Field(min_length=1, max_length=1024)
    revision: str | None = Field(default=None, max_length=255)
    variant: str | None = Field(default=None, max_length=32)
    dtype: DType | None = None
    quantization: Quantization | None = None
    scheduler: SchedulerName | None = None


class Lora(Config):
    """A LoRA that requests can use by its name."""

    name: str = Field(pattern=r"^[a-z0-9]([-_.a-z0-9]{0,61}[a-z0-9])?$")
    uri: str = Field(min_length=1, max_length=1024)
    revision: str | None = Field(default=None, max_length=255)
    strength: float = Field(default=1.0, ge=-4, le=4)


class Optimizations(Config):
    """Performance options. Each one changes how fast an image is generated, and nothing else."""

    channels_last: bool = True
    fuse_qkv: bool = False
    compile: bool = False
    cuda_graphs: bool = True


class WarmupShape(Config):
    """An image size that the replica generates once before it is ready."""

    width: Side
    height: Side


class RuntimeConfig(Config):
    """The `args` of the application. A change restarts the replicas."""

    model: ModelConfig
    loras: tuple[Lora, ...] = Field(default=(), max_length=32)
    optimizations: Optimizations = Optimizations()
    warmup: tuple[WarmupShape, ...] = Field(default=(), max_length=16)


class Limits(Config):
    """Limits of a request."""

    max_side: Side = 1024
    max_pixels: int = Field(default=1024 * 1024, ge=4096, le=16777216)
    max_steps: int = Field(default=100, ge=1, le=1000)
    max_images: int = Field(default=4, ge=1, le=16)
    max_prompt_characters: int = Field(default=2000, ge=1, le=32000)
    timeout_seconds: int = Field(default=120, ge=1, le=3600)
    cold_start_timeout_seconds: int = Field(default=600, ge=1, le=7200)


class Batching(Config):
    """How a replica batches images."""

    max_batch_size: int = Field(default=8, ge=1, le=64)
    max_wait_milliseconds: int = Field(default=5, ge=0, le=1000)


class Defaults(Config):
    """Values for fields that a request does not set. None means the default in the model's folder."""

    width: Side | None = None
    height: Side | None = None
    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance: float | None = Field(default=None, ge=0, le=50)
    prompt_syntax: PromptSyntax = "plain"


class Provenance(Config):
    """Metadata that an image file contains in addition to seed, steps, model and request id."""

    prompt: bool = False


class ResultCache(Config):
    """Size of the ingress's cache for images of seeded requests; 0 turns the cache off."""

    max_mebibytes: int = Field(default=0, ge=0, le=65536)


class LiveConfig(Config):
    """The `user_config` of both deployments. Running replicas apply a change without a restart."""

    limits: Limits = Limits()
    batching: Batching = Batching()
    defaults: Defaults = Defaults()
    provenance: Provenance = Provenance()
    result_cache: ResultCache = ResultCache()
    scale_to_zero: bool = False
    allowed_origins: tuple[Origin, ...] = Field(default=(), max_length=64)
