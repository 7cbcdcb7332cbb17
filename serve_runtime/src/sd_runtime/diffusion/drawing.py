# SPDX-License-Identifier: Apache-2.0
"""One picture on its way from request to file; the unit of batching."""

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sd_runtime.engine import ImageRequest


class Kind(NamedTuple):
    """What pictures of one UNet call have in common; sides in pixels, LoRA names sorted."""

    height: int
    width: int
    loras: tuple[str, ...]


@dataclass(eq=False)
class Drawing:
    """A picture to make, and how far it is.

    Attributes:
        request: with every default filled in; the picture is number `index` of it.
        rows: of a UNet call that it takes: two with guidance.
        cancelled: nobody wants it any more; set by any thread, obeyed before the next step.
        step: denoising calls done, of `steps`, which some schedulers make more than the request's.
        trajectory: latents and noise schedule, while the denoising loop draws it.
        image: the picture, where a pipeline makes it in one go.
        asked: when it was asked for, monotonic seconds.
        since: the same, then when its first step began.
    """

    request: ImageRequest
    index: int = 0
    rows: int = 1
    cancelled: bool = False
    step: int = 0
    steps: int = 0
    trajectory: Any = None
    image: Any = None
    asked: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.monotonic)

    @property
    def seed(self) -> int:
        """Of this picture."""
        return self.request.seed + self.index

    @property
    def kind(self) -> Kind:
        """What it must share with others of its UNet call."""
        return Kind(self.request.height or 0, self.request.width or 0, tuple(sorted(set(self.request.loras))))

    @property
    def begun(self) -> bool:
        """Whether its first step has been taken or is next."""
        return self.steps > 0

    @property
    def finished(self) -> bool:
        """Whether its last step has been taken."""
        return self.begun and self.step == self.steps

    @property
    def steps_done(self) -> int:
        """How far it is, in steps of the request."""
        wanted = self.request.steps or 0
        return self.step * wanted // self.steps if self.steps else 0
