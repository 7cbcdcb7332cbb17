# SPDX-License-Identifier: Apache-2.0
"""What an engine is: requests in, PNG files out. The replica holds one; `diffusion` has the real one."""

from dataclasses import dataclass
from typing import Protocol

from sd_runtime.config import LiveConfig


@dataclass(frozen=True)
class ImageRequest:
    """A valid request.

    Attributes:
        width: pixels, a multiple of 8; None: the model's own size. Likewise `height`.
        steps: denoising steps; None: the model's own.
        guidance: guidance scale; None: the model's own; at most 1 turns guidance off.
        seed: 0 to 2^53 - 1; picture i of `count` uses seed + i.
    """

    prompt: str
    negative_prompt: str
    width: int | None
    height: int | None
    steps: int | None
    guidance: float | None
    seed: int
    count: int


@dataclass(frozen=True)
class Picture:
    """One picture: a PNG file and the seed that makes it again."""

    png: bytes
    seed: int


@dataclass(frozen=True)
class EngineInfo:
    """What the engine computes with, and how long it took to get there (seconds)."""

    device: str
    dtype: str
    versions: dict[str, str]
    load_seconds: dict[str, float]


class Engine(Protocol):
    """Draws pictures; methods are called from one event loop."""

    def info(self) -> EngineInfo:
        """What the engine computes with."""

    def configure(self, live: LiveConfig) -> None:
        """Take over new settings; running requests keep theirs."""

    async def generate(self, request: ImageRequest) -> list[Picture]:
        """Draw the pictures of a request; cancelling the call stops its work within a step.

        Raises:
            GenerationFailed: this request failed; others are not touched.
        """

    async def check(self) -> None:
        """Raise if it can draw no more and only a new process helps."""

    def close(self) -> None:
        """End the engine's thread."""
