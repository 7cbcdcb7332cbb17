# SPDX-License-Identifier: Apache-2.0
"""The real application with an engine that only waits: a tenth of a second per step, on any machine."""

import asyncio
import io

from PIL import Image
from ray import serve

from sd_runtime.config import RuntimeConfig
from sd_runtime.engine.interface import EngineInfo, Picture, Progress
from sd_runtime.serving.ingress import Ingress
from sd_runtime.serving.replica import ModelReplica

STEP_SECONDS = 0.1


class SlowEngine:
    """See `sd_runtime.engine.interface.Engine`."""

    def info(self):
        return EngineInfo(device="cpu", dtype="float32", versions={}, load_seconds={})

    def configure(self, live):
        pass

    async def generate(self, request):
        for step in range(request.steps):
            yield Progress(0, step, request.steps)
            await asyncio.sleep(STEP_SECONDS)
        file = io.BytesIO()
        Image.new("RGB", (64, 64)).save(file, "PNG")
        yield Picture(0, file.getvalue(), request.seed)

    async def check(self):
        pass

    def close(self):
        pass


class SlowReplica(ModelReplica):
    def _load(self, config):
        return SlowEngine()


def build_app(args):
    config = RuntimeConfig.model_validate(args)
    model = serve.deployment(name="model")(SlowReplica)
    return serve.deployment(name="ingress")(Ingress).bind(model.bind(config), config)
