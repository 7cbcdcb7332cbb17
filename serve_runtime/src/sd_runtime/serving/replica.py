# SPDX-License-Identifier: Apache-2.0
"""The `model` deployment: each replica runs one engine."""

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
from sd_runtime.startup import Startup


@contextmanager
def _uncollected() -> Iterator[None]:
    """Turn garbage collection off during imports, which saves a tenth of their time.

    The imported objects stay for good, so they are frozen: each later scan of them would stop the engine for 0.2 seconds.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load_engine(config: RuntimeConfig, startup: Startup) -> Engine:
    """Load the engine of a configuration. torch and diffusers are imported here, in the replica's own process."""
    startup.enter("import")
    if config.model.quantization is None:
        # Diffusers imports torchao wherever it is installed, which takes half a second of each start. None hides it.
        sys.modules["torchao"] = None  # type: ignore[assignment]
    with _uncollected():
        from sd_runtime.engine.diffusion_engine import DiffusionEngine  # noqa: PLC0415 - the ingress never needs torch
        from sd_runtime.engine.loader import load  # noqa: PLC0415 - the ingress never needs torch

    return DiffusionEngine(load(config, startup), LiveConfig(), RayMetrics())


class ModelReplica:
    """One replica of the model. Ray Serve scales the number of replicas with the load."""

    def __init__(self, config: RuntimeConfig) -> None:
        json_logs.install()
        self._starting = Startup(startup_store.publish, ray=ray.__version__)
        self._note: asyncio.Future[None] | None = None
        self._engine = self._load(config)

    def _load(self, config: RuntimeConfig) -> Engine:
        return load_engine(config, self._starting)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply a new LiveConfig without a restart."""
        self._engine.configure(LiveConfig.model_validate(user_config))

    async def generate(self, request: ImageRequest) -> list[Picture]:
        """Generate the images of a request. The result contains image files, not pixels."""
        async with aclosing(self.stream(request)) as updates:
            pictures = [update async for update in updates if isinstance(update, Picture)]
        return sorted(pictures, key=lambda picture: picture.index)

    async def stream(self, request: ImageRequest) -> AsyncGenerator[Update, None]:
        """Generate the images of a request and yield each update."""
        began = time.monotonic()
        async with aclosing(self._engine.generate(request)) as updates:
            async for update in updates:
                if isinstance(update, Picture) and self._note is None:
                    # The report runs in a thread, so that the response does not wait for Ray's head.
                    loop, seconds = asyncio.get_running_loop(), time.monotonic() - began
                    self._note = loop.run_in_executor(None, self._starting.drew, seconds)
                yield update

    async def info(self) -> EngineInfo:
        """The device, data type and options of this replica's engine."""
        await asyncio.sleep(0)
        return self._engine.info()

    async def check_health(self) -> None:
        """Check the engine. Serve calls this every few seconds, and replaces a replica whose check raises."""
        await self._engine.check()

    def __del__(self) -> None:
        """Stop the engine's threads when the replica stops."""
        if hasattr(self, "_engine"):
            self._engine.close()
