# SPDX-License-Identifier: Apache-2.0
"""One picture on its way from request to file; the unit of batching."""

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sd_runtime.engine.interface import ImageRequest, LoraStrengths, RequestWarning
from sd_runtime.engine.lora.lora_switch import Active
from sd_runtime.engine.pipelines.families import Family
from sd_runtime.engine.prompts.chunks import PromptChunks


class BatchKey(NamedTuple):
    """What pictures of one UNet call have in common; sides in pixels, LoRA names sorted.

    `chunks` of their prompts, too: cross attention takes one length per call, and to pad the shorter prompt would
    change its picture.
    """

    height: int
    width: int
    loras: tuple[str, ...]
    chunks: int = 1
    lora_strengths: LoraStrengths = ()

    @property
    def active_loras(self) -> Active:
        """What `LoraSwitch.activate` takes."""
        return Active(self.loras, self.lora_strengths)


@dataclass(eq=False)
class ImageTask:
    """A picture to make, and how far it is.

    Attributes:
        request: with every default filled in; the picture is number `index` of it.
        rows: of a UNet call that it takes: two with guidance.
        prompts: what must be encoded for it: the prompt, then what to avoid if it is guided.
        warnings: of the request.
        cancelled: nobody wants it any more; set by any thread, obeyed before the next step.
        begun: its first step has been taken or is next.
        step: denoising calls done, of `steps`, which some schedulers make more than the request's.
        trajectory: latents and noise schedule, from its preparation until it is denoised.
        ready: the CUDA event after which these are on the device.
        image: the picture, where a pipeline makes it in one go.
        asked: when it was asked for, monotonic seconds.
        since: the same, then when its first step began.
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
        """Of this picture."""
        return self.request.seed + self.index

    @property
    def kind(self) -> BatchKey:
        """What it must share with others of its UNet call."""
        request = self.request
        chunks = len(self.prompts[0]) if self.prompts else 1
        loras = tuple(sorted(set(request.loras)))
        return BatchKey(request.height or 0, request.width or 0, loras, chunks, request.lora_strengths)

    @property
    def finished(self) -> bool:
        """Whether its last step has been taken."""
        return self.begun and self.step == self.steps

    @property
    def steps_done(self) -> int:
        """How far it is, in steps of the request."""
        wanted = self.request.steps or 0
        return self.step * wanted // self.steps if self.steps else 0


def tasks(
    request: ImageRequest, family: Family | None, warnings: tuple[RequestWarning, ...] = ()
) -> list[ImageTask]:
    """The pictures of a request.

    Args:
        request: with every default filled in.
        family: of the pipeline; None: it reads its prompts itself.
        warnings: of the request.

    Raises:
        InvalidRequest: a prompt cannot be read.
    """
    rows = 1 if family is None else family.rows(request.guidance or 0.0)
    prompts = () if family is None else family.prompts(request)
    return [ImageTask(request, index, rows, prompts, warnings) for index in range(request.count)]
