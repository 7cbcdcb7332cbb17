# SPDX-License-Identifier: Apache-2.0
"""The engine interface: requests in, image files out.

Each replica has one engine. `diffusion_engine` implements the interface with diffusers.
"""

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
    """The form in which images are sent.

    Attributes:
        format: file format.
        compression: quality of jpeg and webp, 0 to 100; png is lossless and ignores it.
        previews: number of unfinished images to send during generation, 0 to 3.
    """

    format: FileFormat = "png"
    compression: int = 100
    previews: int = 0


LoraStrengths = tuple[tuple[str, float], ...]
"""LoRA names and their strengths, sorted by name."""


@dataclass(frozen=True)
class ImageRequest:
    """A valid request.

    Attributes:
        width: pixels, a multiple of 8; None: the model's default. The same holds for `height`.
        steps: denoising steps; None: the model's default.
        guidance: guidance scale; None: the model's default. A value of at most 1 turns guidance off.
        seed: 0 to 2^53 - 1; image i of `count` uses seed + i.
        scheduler: name of the scheduler; None: the service's default.
        schedule: options of the scheduler.
        guidance_rescale: 0 to 1, how far the spread of a guided prediction is reduced to that of the unguided one.
        clip_skip: number of last text encoder layers that the prompt skips; None: as the model was trained.
        loras: LoRA names from the configuration, each once.
        lora_strengths: strengths of the LoRAs that differ from the configured strength.
        prompt_syntax: syntax of both prompts, see `sd_runtime.engine.prompts.syntax`.
        id: id of the HTTP request, for logs and the file's metadata.
        seeded: the client sent the seed. The same request then makes the same file, so the file omits the id.
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
    """Raise InvalidRequest unless each LoRA of the request is offered, and named once.

    Args:
        request: the request.
        offered: names of LoRAs that requests may use.
        refused: configured LoRAs that cannot be used: the reason, by name.
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
    """A warning: a part of a request has no effect, or not the effect that the client may expect.

    Attributes:
        code: one word, for scripts.
        param: the field that the warning is about.
        message: field, value and rule, as in errors; the message never contains the prompt.
    """

    code: str
    param: str
    message: str


@dataclass(frozen=True)
class Progress:
    """The progress of a request.

    Attributes:
        ahead: number of images that start before the request's first one, if no others arrive; 0 after its start.
        step: denoising steps done, summed over the images of the request.
        steps: all denoising steps of the request.
        warnings: warnings of the request.
    """

    ahead: int
    step: int
    steps: int
    warnings: tuple[RequestWarning, ...] = ()


@dataclass(frozen=True)
class Preview:
    """An unfinished image, as a small file in the requested format; `number` counts from 0 for each image."""

    index: int
    number: int
    data: bytes
    warnings: tuple[RequestWarning, ...] = ()


@dataclass(frozen=True)
class Picture:
    """One finished image.

    Attributes:
        index: number of the image within the request, from 0.
        data: content of the file.
        seed: the seed that generates the same image again.
        seconds: time from the arrival of the request to the finished image, including the wait.
        warnings: warnings of the request.
    """

    index: int
    data: bytes
    seed: int
    seconds: float = field(default=0.0, compare=False)
    warnings: tuple[RequestWarning, ...] = ()


Update = Progress | Preview | Picture


@dataclass(frozen=True)
class EngineInfo:
    """The device, the versions and the settings that the engine uses.

    Attributes:
        load_seconds: seconds of each phase of the start.
        defaults: width, height, steps, guidance and scheduler of requests that leave these fields out.
        optimizations: the optimizations in effect; some configured ones may not be available here.
        loras: names that requests may use.
        batching: step: images of many requests share each denoising step; none: one image at a time.
        quantization: number format of quantized weights; None: no weights are quantized.
        schedulers: names that requests may use, and the options of each; empty: only the model's own scheduler.
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
    """Generates images; all methods are called from one event loop."""

    def info(self) -> EngineInfo:
        """Return the device, the versions and the settings that the engine uses."""

    def configure(self, live: LiveConfig) -> None:
        """Apply new settings; running requests keep their own."""

    def generate(self, request: ImageRequest) -> AsyncGenerator[Update, None]:
        """Generate the images of a request.

        The iterator yields a Progress from time to time, the requested previews, and each Picture once. Closing the
        iterator, or cancelling the task that reads it, stops the work within a step.

        Raises:
            InvalidRequest: the request names an unknown LoRA, or needs something that the model cannot do.
            GenerationFailed: this request failed; other requests are not affected.
        """

    async def check(self) -> None:
        """Raise if the engine can no longer generate images and only a new process helps."""

    def close(self) -> None:
        """Stop the engine's threads."""
