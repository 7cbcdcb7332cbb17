# SPDX-License-Identifier: Apache-2.0
"""The image task: one image on its way from request to file, and the unit of batching."""

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sd_runtime.engine.interface import ImageRequest, LoraStrengths, RequestWarning
from sd_runtime.engine.lora.lora_switch import Active
from sd_runtime.engine.pipelines.families import Family
from sd_runtime.engine.prompts.chunks import PromptChunks


class BatchKey(NamedTuple):
    """The properties that all image tasks of one UNet call share; sides in pixels, LoRA names sorted.

    The number of `chunks` of the prompts is one of these properties. Cross-attention takes one length per call, and
    padding the shorter prompt would change its image.
    """

    height: int
    width: int
    loras: tuple[str, ...]
    chunks: int = 1
    lora_strengths: LoraStrengths = ()

    @property
    def active_loras(self) -> Active:
        """The LoRAs and strengths, in the form that `LoraSwitch.activate` takes."""
        return Active(self.loras, self.lora_strengths)


@dataclass(eq=False)
class ImageTask:
    """One image to generate, and its progress.

    Attributes:
        request: the request, with every default filled in.
        index: the number of the image within the request, from 0.
        rows: rows that the task takes in a UNet call: two with guidance, else one.
        prompts: prompts to encode: the prompt, and with guidance the negative prompt after it.
        warnings: warnings of the request.
        cancelled: the client no longer waits for the image. Any thread sets it; the runner checks it before a step.
        begun: the first step has been taken or is next.
        step: number of denoising calls done.
        steps: number of all denoising calls; some schedulers make more of them than the request's steps.
        trajectory: latents and noise schedule, from preparation until the last step is done.
        ready: the CUDA event after which latents and schedule are on the device.
        image: the finished image, if the pipeline generates it in its own `__call__`.
        asked: creation time of the task, in monotonic seconds.
        since: start of the current phase, in monotonic seconds: the creation time, later the time of the first step.
    """

    request: ImageRequest
    index: int = 0
    rows: int = 1
    prompts: tuple[PromptChunks, ...] = ()
    warnings: tuple[RequestWarning, ...] = ()
    cancelled: bool = False
    begun: bool = False
    step: int = 0
    steps: int = 0
    trajectory: Any = None
    ready: Any = None
    image: Any = None
    asked: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.monotonic)

    @property
    def seed(self) -> int:
        """The seed of this image."""
        return self.request.seed + self.index

    @property
    def kind(self) -> BatchKey:
        """The batch key of the task; only tasks with the same key share a UNet call."""
        request = self.request
        chunks = len(self.prompts[0]) if self.prompts else 1
        loras = tuple(sorted(set(request.loras)))
        return BatchKey(request.height or 0, request.width or 0, loras, chunks, request.lora_strengths)

    @property
    def finished(self) -> bool:
        """Whether the last step has been taken."""
        return self.begun and self.step == self.steps

    @property
    def steps_done(self) -> int:
        """The progress of the task, in steps of the request."""
        wanted = self.request.steps or 0
        return self.step * wanted // self.steps if self.steps else 0


def tasks(
    request: ImageRequest, family: Family | None, warnings: tuple[RequestWarning, ...] = ()
) -> list[ImageTask]:
    """Return the image tasks of a request.

    Args:
        request: the request, with every default filled in.
        family: the family of the pipeline; None: the pipeline reads its prompts itself.
        warnings: warnings of the request.

    Raises:
        InvalidRequest: a prompt cannot be parsed.
    """
    rows = 1 if family is None else family.rows(request.guidance or 0.0)
    prompts = () if family is None else family.prompts(request)
    return [ImageTask(request, index, rows, prompts, warnings) for index in range(request.count)]
