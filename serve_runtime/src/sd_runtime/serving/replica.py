# SPDX-License-Identifier: Apache-2.0
"""The `model` deployment: one engine, its settings, and its health."""

import asyncio
import gc
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import ray

from sd_runtime.config import LiveConfig, RuntimeConfig
from sd_runtime.engine.interface import Engine, EngineInfo, ImageRequest, Picture, Update
from sd_runtime.observability import json_logs
from sd_runtime.observability.engine_metrics import RayMetrics
from sd_runtime.serving import startup_store
from sd_runtime.startup import Starting


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection, which would look at what imports leave again and again, for a tenth of their time.

    It never looks at that later either: all of it stays, and each look would stop the drawing for a fifth of a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load_engine(config: RuntimeConfig, starting: Starting) -> Engine:
    """The engine of a configuration; torch and diffusers are imported here, in the replica's own process."""
    starting.enter("import")
    if config.model.quantization is None:
        # Diffusers imports torchao wherever it is installed, which takes half a second of each start. None hides it.
        sys.modules["torchao"] = None  # type: ignore[assignment]
    with _uncollected():
        from sd_runtime.engine.diffusion_engine import DiffusionEngine  # noqa: PLC0415 - the ingress never needs torch
        from sd_runtime.engine.loader import load  # noqa: PLC0415 - the ingress never needs torch

    return DiffusionEngine(load(config, starting), LiveConfig(), RayMetrics())


class ModelReplica:
    """One replica of the model; Ray Serve makes as many as the load asks for."""

    def __init__(self, config: RuntimeConfig) -> None:
        json_logs.install()
        self._starting = Starting(startup_store.tell, ray=ray.__version__)
        self._note: asyncio.Future[None] | None = None
        self._engine = self._load(config)

    def _load(self, config: RuntimeConfig) -> Engine:
        return load_engine(config, self._starting)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take over a LiveConfig without a restart."""
        self._engine.configure(LiveConfig.model_validate(user_config))

    async def generate(self, request: ImageRequest) -> list[Picture]:
        """Draw the pictures of a request; files travel back, not pixels."""
        async with aclosing(self.stream(request)) as updates:
            pictures = [update async for update in updates if isinstance(update, Picture)]
        return sorted(pictures, key=lambda picture: picture.index)

    async def stream(self, request: ImageRequest) -> AsyncGenerator[Update, None]:
        """The same, told step by step."""
        began = time.monotonic()
        async with aclosing(self._engine.generate(request)) as updates:
            async for update in updates:
                if isinstance(update, Picture) and self._note is None:
                    # Beside the answer, which does not wait for Ray's head.
                    loop, seconds = asyncio.get_running_loop(), time.monotonic() - began
                    self._note = loop.run_in_executor(None, self._starting.drew, seconds)
                yield update

    async def info(self) -> EngineInfo:
        """What this replica computes with."""
        await asyncio.sleep(0)
        return self._engine.info()

    async def check_health(self) -> None:
        """Asked by Serve every few seconds; it replaces a replica that raises here."""
        await self._engine.check()

    def __del__(self) -> None:
        """End the engine's threads with the replica."""
        if hasattr(self, "_engine"):
            self._engine.close()
