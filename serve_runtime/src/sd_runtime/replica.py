# SPDX-License-Identifier: Apache-2.0
"""The `model` deployment: one engine, its settings, and its health."""

import asyncio
import time
from typing import Any

from sd_runtime.config import LiveConfig, RuntimeConfig
from sd_runtime.engine import Engine, EngineInfo, ImageRequest, Picture


def load_engine(config: RuntimeConfig) -> Engine:
    """The engine of a configuration; torch and diffusers are imported here, in the replica's own process."""
    began = time.monotonic()
    from sd_runtime.diffusion import BatchingEngine, load  # noqa: PLC0415 - the ingress never needs torch

    imported = time.monotonic() - began
    model = load(config.model)
    model.seconds["import"] = imported
    return BatchingEngine(model, LiveConfig())


class ModelReplica:
    """One replica of the model; Ray Serve makes as many as the load asks for."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._engine = load_engine(config)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take over a LiveConfig without a restart."""
        self._engine.configure(LiveConfig.model_validate(user_config))

    async def generate(self, request: ImageRequest) -> list[Picture]:
        """Draw the pictures of a request; PNG files travel back, not pixels."""
        return await self._engine.generate(request)

    async def info(self) -> EngineInfo:
        """What this replica computes with."""
        await asyncio.sleep(0)
        return self._engine.info()

    async def check_health(self) -> None:
        """Asked by Serve every few seconds; it replaces a replica that raises here."""
        await self._engine.check()

    def __del__(self) -> None:
        """End the engine's thread with the replica."""
        if hasattr(self, "_engine"):
            self._engine.close()
