# SPDX-License-Identifier: Apache-2.0
"""Fields of the spec for serving: replicas, autoscaling, batching, defaults and limits of requests."""

from typing import Annotated, Literal

from pydantic import Field

from sd_operator.api.base import Model, Rule

Side = Annotated[int, Field(ge=64, le=4096, multiple_of=8)]


class Replicas(Model):
    """Minimum and maximum number of model replicas. Ray Serve scales between them."""

    rules = (
        Rule(
            cel="self.min <= self.max",
            holds=lambda r: r.min <= r.max,
            message="min must not exceed max: lower min or raise max",
            field=".min",
        ),
    )

    min: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="Minimum number of replicas. With 0 the service scales to zero, and the next request waits for a cold start.",
    )
    max: int = Field(ge=1, le=1000, description="Maximum number of replicas.")


class Autoscaling(Model):
    """When Ray Serve adds and removes model replicas, and when Ray removes workers."""

    target_ongoing_requests: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description=(
            "Target number of ongoing requests per replica. Ray Serve adds a replica above this number. If unset:"
            " batching.maxBatchSize, so that batches are full before a replica is added."
        ),
    )
    upscale_delay_seconds: int = Field(
        default=10, ge=0, le=3600, description="Seconds of high load until a replica is added."
    )
    downscale_delay_seconds: int = Field(
        default=300, ge=0, le=86400, description="Seconds of low load until a replica is removed."
    )
    idle_worker_seconds: int = Field(
        default=120,
        ge=1,
        le=86400,
        description="Seconds without a replica until a worker pod is removed.",
    )


class Batching(Model):
    """How a replica processes several pictures in one batch."""

    max_batch_size: int = Field(
        default=8,
        ge=1,
        le=64,
        description="Maximum number of pictures in a batch. A picture with guidance takes two rows of the network's batch.",
    )
    max_wait_milliseconds: int = Field(
        default=5,
        ge=0,
        le=1000,
        description="Milliseconds for which an idle replica waits after each request for others to join its batch. It waits for no"
        " more images than it had at once a moment ago, so a lone client does not wait.",
    )


class Defaults(Model):
    """Defaults for parameters that a request omits. If unset, the defaults in the folder of the model."""

    width: Side | None = Field(default=None, description="Picture width in pixels, a multiple of 8.")
    height: Side | None = Field(default=None, description="Picture height in pixels, a multiple of 8.")
    steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="Number of denoising steps. More steps take longer and often give better pictures.",
    )
    guidance: Annotated[float, Field(ge=0, le=50)] | None = Field(
        default=None,
        description="Guidance scale: how closely a picture follows its prompt. 0 or 1 turns guidance off.",
    )
    prompt_syntax: Literal["plain", "weighted"] | None = Field(
        default=None,
        description="Syntax of prompts. plain (the default): every character is literal. weighted: AUTOMATIC1111 weights:"
        " (word:1.3), ((word)), [word], BREAK. Pipelines with their own prompt encoding support plain only.",
    )


class Limits(Model):
    """Limits of a request. A request above a limit is answered with status 400, and the error names the limit."""

    max_side: Side = Field(default=1024, description="Maximum width and height in pixels.")
    max_pixels: int = Field(
        default=1024 * 1024, ge=4096, le=16777216, description="Maximum of width times height in pixels."
    )
    max_steps: int = Field(default=100, ge=1, le=1000, description="Maximum number of denoising steps.")
    max_images: int = Field(
        default=4, ge=1, le=16, description="Maximum number of pictures per request (`n`)."
    )
    max_prompt_characters: int = Field(
        default=2000, ge=1, le=32000, description="Maximum length of a prompt in characters."
    )
    max_queued_requests: int = Field(
        default=64,
        ge=1,
        le=10000,
        description="Maximum number of waiting requests. Further requests are answered with status 429 and Retry-After.",
    )
    timeout_seconds: int = Field(
        default=120,
        ge=1,
        le=3600,
        description="Seconds until a request times out and is answered with status 504.",
    )
    cold_start_timeout_seconds: int = Field(
        default=600,
        ge=1,
        le=7200,
        description="Seconds that a request waits for a first replica at zero replicas. Then it is answered with status 503.",
    )


class Optimizations(Model):
    """Performance options. They change only how fast pictures are generated. A change restarts the replicas."""

    channels_last: bool = Field(
        default=True, description="Use the channels_last memory format, which is faster on GPUs."
    )
    fuse_qkv: bool = Field(
        default=False, description="Compute query, key and value of attention in one multiplication."
    )
    compile: bool = Field(
        default=False,
        description="Compile the model for the shapes in `warmup`: slower start, faster steps. The image needs a C++ compiler.",
    )
    cuda_graphs: bool = Field(
        default=True,
        description="Record CUDA graphs for the sizes in `warmup`: fewer kernel launches, more memory. No effect on a CPU.",
    )


class WarmupShape(Model):
    """A picture size that a replica generates once before it is ready."""

    width: Side = Field(description="Picture width in pixels, a multiple of 8.")
    height: Side = Field(description="Picture height in pixels, a multiple of 8.")


class Warmup(Model):
    """Pictures that a replica generates before it accepts requests. A change restarts the replicas."""

    shapes: Annotated[tuple[WarmupShape, ...], Field(max_length=16)] = Field(
        default=(),
        description="Picture sizes, within `limits`. Each size makes the start a little longer.",
    )


class Provenance(Model):
    """Metadata in picture files, in addition to seed, steps, guidance, model, revision and request id."""

    prompt: bool = Field(
        default=False,
        description="Write the prompts into the file. If false, only hashes of the prompts.",
    )


class ResultCache(Model):
    """A cache of pictures. A repeated request with a seed is answered from the cache."""

    max_mebibytes: int = Field(
        default=0,
        ge=0,
        le=65536,
        description="Size of the cache in the memory of the ingress, in mebibytes. 0 turns the cache off.",
    )
