# SPDX-License-Identifier: Apache-2.0
"""What an engine is: requests in, picture files out. The replica holds one; `diffusion` has the real one."""

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from sd_runtime.config import LiveConfig, PromptSyntax, SchedulerName
from sd_runtime.engine.schedule_options import AS_THE_MODEL, ScheduleOptions
from sd_runtime.errors import InvalidRequest
from sd_runtime.startup import Batching

FileFormat = Literal["png", "jpeg", "webp"]


@dataclass(frozen=True)
class Output:
    """How pictures come back.

    Attributes:
        compression: quality of jpeg and webp, 0 to 100; png is lossless and ignores it.
        previews: unfinished pictures to send on the way, 0 to 3.
    """

    format: FileFormat = "png"
    compression: int = 100
    previews: int = 0


LoraStrengths = tuple[tuple[str, float], ...]
"""Strengths of LoRAs by name, sorted."""


@dataclass(frozen=True)
class ImageRequest:
    """A valid request.

    Attributes:
        width: pixels, a multiple of 8; None: the model's own size. Likewise `height`.
        steps: denoising steps; None: the model's own.
        guidance: guidance scale; None: the model's own; at most 1 turns guidance off.
        seed: 0 to 2^53 - 1; picture i of `count` uses seed + i.
        scheduler: None: the service's own.
        schedule: options of the scheduler.
        guidance_rescale: 0 to 1, how far a guided prediction is brought back to the spread of the unguided one.
        clip_skip: last layers of the text encoders that the prompt leaves out; None: as the model was trained.
        loras: names from the configuration, each once.
        lora_strengths: of those that are to act at another strength than the configured one.
        prompt_syntax: how both prompts are read, see `sd_runtime.engine.prompts.syntax`.
        id: of the HTTP request, for logs and the file's metadata.
        seeded: the client chose the seed: the same request makes the same file, so its id stays out of that.
    """

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    count: int = 1
    scheduler: SchedulerName | None = None
    schedule: ScheduleOptions = AS_THE_MODEL
    guidance_rescale: float = 0.0
    clip_skip: int | None = None
    loras: tuple[str, ...] = ()
    lora_strengths: LoraStrengths = ()
    prompt_syntax: PromptSyntax = "plain"
    output: Output = Output()
    id: str = ""
    seeded: bool = False


def check_loras(
    request: ImageRequest, offered: Collection[str], refused: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Raise InvalidRequest unless each LoRA of the request is one of those offered, and named once.

    Args:
        request: the request.
        offered: names that can be used.
        refused: why a LoRA of the service cannot be used, by its name.
    """
    for name in request.loras:
        if name in refused:
            raise InvalidRequest(f"lora: got {name!r}: the LoRA cannot be used: {refused[name]}", "lora")
        if name not in offered:
            rule = f"must be one of {', '.join(offered)}" if offered else "this service has no LoRAs"
            raise InvalidRequest(f"lora: got {name[:80]!r}: {rule}", "lora")
    if len(set(request.loras)) < len(request.loras):
        raise InvalidRequest("lora: got a name twice: each name must appear once", "lora")


@dataclass(frozen=True)
class RequestWarning:
    """A part of a request that has no effect, or not the one that the client may expect.

    Attributes:
        code: one word for scripts.
        param: the field that holds the part.
        message: field, value and rule, as in errors; never the prompt.
    """

    code: str
    param: str
    message: str


@dataclass(frozen=True)
class Progress:
    """How far a request is.

    Attributes:
        ahead: images that begin before its first one unless others arrive; 0 once that has begun.
        step: denoising steps done, summed over its pictures.
        steps: all of them.
        warnings: of the request.
    """

    ahead: int
    step: int
    steps: int
    warnings: tuple[RequestWarning, ...] = ()


@dataclass(frozen=True)
class Preview:
    """An unfinished picture, as a small file of the wanted format; `number` counts from 0 for each picture."""

    index: int
    number: int
    data: bytes
    warnings: tuple[RequestWarning, ...] = ()


@dataclass(frozen=True)
class Picture:
    """One finished picture.

    Attributes:
        index: its place in the request.
        data: the file.
        seed: what makes it again.
        seconds: that the engine took for it, waiting included.
        warnings: of the request.
    """

    index: int
    data: bytes
    seed: int
    seconds: float = field(default=0.0, compare=False)
    warnings: tuple[RequestWarning, ...] = ()


Update = Progress | Preview | Picture


@dataclass(frozen=True)
class EngineInfo:
    """What the engine computes with.

    Attributes:
        load_seconds: by phase of starting.
        defaults: width, height, steps, guidance and scheduler of a request that does not say.
        optimizations: the switches as they are in effect, which may be fewer than were asked for.
        loras: names that requests may use.
        batching: step: images of many requests share each denoising step; none: one image at a time.
        quantization: number format of quantized weights; None: no weights are quantized.
        schedulers: names that requests may use, and the options of each; empty: the model's own alone.
    """

    device: str
    dtype: str
    versions: dict[str, str]
    load_seconds: dict[str, float]
    defaults: dict[str, Any] = field(default_factory=dict)
    optimizations: dict[str, bool] = field(default_factory=dict)
    loras: tuple[str, ...] = ()
    batching: Batching = "step"
    quantization: str | None = None
    schedulers: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Engine(Protocol):
    """Draws pictures; methods are called from one event loop."""

    def info(self) -> EngineInfo:
        """What the engine computes with."""

    def configure(self, live: LiveConfig) -> None:
        """Take over new settings; running requests keep theirs."""

    def generate(self, request: ImageRequest) -> AsyncGenerator[Update, None]:
        """Draw the pictures of a request: a Progress now and then, previews if asked for, each Picture once.

        Closing the iterator or cancelling who reads it stops the work within a step.

        Raises:
            InvalidRequest: it names a LoRA that is not there, or asks of the model what that cannot do.
            GenerationFailed: this request failed; others are not touched.
        """

    async def check(self) -> None:
        """Raise if it can draw no more and only a new process helps."""

    def close(self) -> None:
        """End the engine's threads."""
