# SPDX-License-Identifier: Apache-2.0
"""How requests are served: replicas and their scaling, batching, defaults and limits of a request."""

from typing import Annotated, Literal

from pydantic import Field

from sd_operator.api.base import Model, Rule

Side = Annotated[int, Field(ge=64, le=4096, multiple_of=8)]


class Replicas(Model):
    """Bounds of the model replicas; Ray Serve scales between them."""

    rules = (
        Rule(
            cel="self.min <= self.max",
            holds=lambda r: r.min <= r.max,
            message="min must not be above max: lower min or raise max",
            field=".min",
        ),
    )

    min: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="Replicas kept when idle; 0 scales to zero, and the next request waits for a cold start.",
    )
    max: int = Field(ge=1, le=1000, description="Replicas at full load.")


class Autoscaling(Model):
    """When Ray Serve adds and removes model replicas, and Ray removes workers."""

    target_ongoing_requests: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description=(
            "Requests in progress per replica that Ray Serve aims at; above it, a replica is added. Absent:"
            " batching.maxBatchSize, so that a batch is full before a replica is added."
        ),
    )
    upscale_delay_seconds: int = Field(
        default=10, ge=0, le=3600, description="Seconds of high load before a replica is added."
    )
    downscale_delay_seconds: int = Field(
        default=300, ge=0, le=86400, description="Seconds of low load before a replica is removed."
    )
    idle_worker_seconds: int = Field(
        default=120, ge=1, le=86400, description="Seconds without a replica before a worker pod is removed."
    )


class Batching(Model):
    """How a replica draws several pictures in one pass."""

    max_batch_size: int = Field(
        default=8, ge=1, le=64, description="Pictures per pass; a guided picture takes two rows of it."
    )
    max_wait_milliseconds: int = Field(
        default=5,
        ge=0,
        le=1000,
        description="Milliseconds that an idle replica waits after each request for others to share the first passes;"
        " it waits for no more images than it had at once until a moment ago, so a lone client never waits.",
    )


class Defaults(Model):
    """What a request gets that does not say; absent: what the model's folder says."""

    width: Side | None = Field(default=None, description="Picture width in pixels, a multiple of 8.")
    height: Side | None = Field(default=None, description="Picture height in pixels, a multiple of 8.")
    steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Denoising steps; more is slower and often better."
    )
    guidance: Annotated[float, Field(ge=0, le=50)] | None = Field(
        default=None,
        description="Guidance scale: how closely a picture follows its prompt; 0 or 1 turns it off.",
    )
    prompt_syntax: Literal["plain", "weighted"] | None = Field(
        default=None,
        description="How prompts are read: every character as it is (plain, if absent), or with the weights of"
        " AUTOMATIC1111: (word:1.3), ((word)), [word], BREAK. Pipelines that encode prompts themselves take plain only.",
    )


class Limits(Model):
    """Bounds of a request; what is above them is answered 400 with the limit."""

    max_side: Side = Field(default=1024, description="Largest width and height in pixels.")
    max_pixels: int = Field(
        default=1024 * 1024, ge=4096, le=16777216, description="Largest width times height in pixels."
    )
    max_steps: int = Field(default=100, ge=1, le=1000, description="Most denoising steps.")
    max_images: int = Field(default=4, ge=1, le=16, description="Most pictures per request (`n`).")
    max_prompt_characters: int = Field(
        default=2000, ge=1, le=32000, description="Longest prompt in characters."
    )
    max_queued_requests: int = Field(
        default=64,
        ge=1,
        le=10000,
        description="Requests waiting for a replica; one more is answered 429 with Retry-After.",
    )
    timeout_seconds: int = Field(
        default=120, ge=1, le=3600, description="Seconds until a request is given up and answered 504."
    )
    cold_start_timeout_seconds: int = Field(
        default=600,
        ge=1,
        le=7200,
        description="Seconds a request that wakes a service at zero replicas is held before 503.",
    )


class Optimizations(Model):
    """Speed switches; each changes how fast a picture is drawn, and nothing else. A change restarts the replicas."""

    channels_last: bool = Field(
        default=True, description="Store pictures channel by channel last, as GPUs like."
    )
    fuse_qkv: bool = Field(default=False, description="Compute query, key and value in one multiplication.")
    compile: bool = Field(
        default=False,
        description="Compile the model for the shapes in warmup: a slower start, faster steps. It takes a C++ compiler in the image.",
    )
    cuda_graphs: bool = Field(
        default=True,
        description="Replay recorded GPU work for the sizes of the warm-up: takes memory, saves launches. A CPU has none.",
    )


class WarmupShape(Model):
    """A picture size that is drawn once before a replica is ready."""

    width: Side = Field(description="Picture width in pixels, a multiple of 8.")
    height: Side = Field(description="Picture height in pixels, a multiple of 8.")


class Warmup(Model):
    """What a replica draws before it takes requests. A change restarts the replicas."""

    shapes: Annotated[tuple[WarmupShape, ...], Field(max_length=16)] = Field(
        default=(), description="Picture sizes, within the limits; each makes the start a little longer."
    )


class Provenance(Model):
    """What a picture file says of its making, beside seed, steps, guidance, model, revision and request id."""

    prompt: bool = Field(
        default=False, description="Write the prompts themselves into the file; else their hashes alone."
    )


class ResultCache(Model):
    """Pictures of seeded requests that are answered again without drawing."""

    max_mebibytes: int = Field(
        default=0,
        ge=0,
        le=65536,
        description="Mebibytes of pictures kept in the memory of the ingress; 0 keeps none.",
    )
