# SPDX-License-Identifier: Apache-2.0
"""The engine: waiting pictures of equal shape share a pipeline call, one call at a time on one thread.

The unit is the picture, not the request: a request for four may be split, and shares its calls with others.
"""

import asyncio
import logging
import platform
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version

from sd_runtime.config import LiveConfig
from sd_runtime.diffusion.drawing import Abandoned, Drawing, Shape, draw, touch
from sd_runtime.diffusion.loader import LoadedModel
from sd_runtime.engine import EngineInfo, ImageRequest, Picture
from sd_runtime.errors import GenerationFailed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Waiting:
    """A picture and who waits for it.

    Attributes:
        done: cancelled when the client has gone.
        since: when it arrived, seconds on the monotonic clock.
    """

    drawing: Drawing
    done: asyncio.Future[Picture]
    since: float


class BatchingEngine:
    """Draws with a loaded pipeline; see `sd_runtime.engine.Engine`."""

    def __init__(self, model: LoadedModel, live: LiveConfig) -> None:
        self._model = model
        self._live = live
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="diffusion")
        self._loop: asyncio.Task[None] | None = None

    def info(self) -> EngineInfo:
        """What the engine computes with."""
        versions = {name: version(name) for name in ("sd-runtime", "ray", "torch", "diffusers")}
        versions["python"] = platform.python_version()
        return EngineInfo(self._model.device, self._model.dtype, versions, dict(self._model.seconds))

    def configure(self, live: LiveConfig) -> None:
        """Take over new settings; they apply to the next call."""
        self._live = live

    async def generate(self, request: ImageRequest) -> list[Picture]:
        """Draw the pictures of a request; cancelling the call stops its work within a step."""
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._draw_for_ever(), name="batching")
        loop, now = asyncio.get_running_loop(), time.monotonic()
        mine = [_Waiting(drawing, loop.create_future(), now) for drawing in self._drawings(request)]
        self._waiting.extend(mine)
        self._arrived.set()
        try:
            return list(await asyncio.gather(*(waiting.done for waiting in mine)))
        finally:
            # Also when one picture failed: nobody waits for its siblings any more.
            for waiting in mine:
                waiting.done.cancel()

    async def check(self) -> None:
        """Raise if the device computes no more."""
        await asyncio.to_thread(touch, self._model.device)

    def close(self) -> None:
        """End the engine's thread."""
        if self._loop is not None:
            self._loop.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _drawings(self, request: ImageRequest) -> list[Drawing]:
        model = self._model
        shape = Shape(
            width=model.width if request.width is None else request.width,
            height=model.height if request.height is None else request.height,
            steps=model.steps if request.steps is None else request.steps,
            guidance=model.guidance if request.guidance is None else request.guidance,
        )
        return [
            Drawing(request.prompt, request.negative_prompt, shape, request.seed + index)
            for index in range(request.count)
        ]

    async def _draw_for_ever(self) -> None:
        while True:
            while not self._waiting:
                await self._arrival()
            await self._company()
            batch = self._next_batch()
            if batch:
                await self._run(batch)

    async def _arrival(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    async def _company(self) -> None:
        """Wait until a batch is full, or the oldest picture has waited its time."""
        batching = self._live.batching
        until = self._waiting[0].since + batching.max_wait_milliseconds / 1000
        while len(self._waiting) < batching.max_batch_size and (left := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._arrival()

    def _next_batch(self) -> list[_Waiting]:
        """Take the oldest picture that is still wanted, and those of its shape, in order of arrival."""
        wanted = [waiting for waiting in self._waiting if not waiting.done.done()]
        shape = wanted[0].drawing.shape if wanted else None
        equal = [waiting for waiting in wanted if waiting.drawing.shape == shape]
        batch = equal[: self._live.batching.max_batch_size]
        self._waiting = deque(waiting for waiting in wanted if waiting not in batch)
        return batch

    async def _run(self, batch: Sequence[_Waiting]) -> None:
        """Draw a batch; if it fails, draw each picture alone, so that only the culprit fails."""
        try:
            pictures = await self._call(batch)
        except Abandoned:
            return
        except Exception as error:  # noqa: BLE001 - whatever failed, the engine serves on
            if len(batch) > 1:
                for waiting in batch:
                    await self._run([waiting])
            else:
                _fail(batch[0], error)
        else:
            for waiting, picture in zip(batch, pictures, strict=True):
                if not waiting.done.done():
                    waiting.done.set_result(picture)

    async def _call(self, batch: Sequence[_Waiting]) -> list[Picture]:
        def wanted() -> bool:
            return not all(waiting.done.cancelled() for waiting in batch)

        drawings = [waiting.drawing for waiting in batch]
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, draw, self._model, drawings, wanted
        )


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not isinstance(error, GenerationFailed):
        # The traceback only: the message of a foreign error may hold the prompt.
        logger.error("a picture failed: %s", type(error).__name__)
        error = GenerationFailed(f"the pipeline failed with {type(error).__name__}")
    if not waiting.done.done():
        waiting.done.set_exception(error)
