# SPDX-License-Identifier: Apache-2.0
"""The HTTP API over a fake backend that a test controls. The API needs neither Ray nor torch."""

import asyncio
import io
from dataclasses import asdict

import httpx
import pytest
from PIL import Image

from sd_runtime.api import application
from sd_runtime.api.image_backend import Readiness
from sd_runtime.api.service import Service
from sd_runtime.config import LiveConfig, RuntimeConfig
from sd_runtime.engine.interface import EngineInfo, Picture, Preview, Progress, RequestWarning
from sd_runtime.engine.postprocess import encode, provenance

CONFIG = RuntimeConfig.model_validate(
    {
        "model": {"uri": "bundled://shapes"},
        "loras": [{"name": "ink", "uri": "file:///ink"}, {"name": "oil", "uri": "file:///oil"}],
    }
)
LIVE = LiveConfig.model_validate({"defaults": {"width": 64, "height": 64, "steps": 4, "guidance": 4.0}})
INFO = EngineInfo(
    device="cpu",
    dtype="float32",
    quantization="fp8",
    versions={"torch": "2"},
    load_seconds={"weights": 1.0},
    defaults={"width": 512, "height": 512, "steps": 25, "guidance": 7.5, "scheduler": "Euler"},
    optimizations={"compile": False},
    loras=("ink", "oil"),
    schedulers={"Euler": ("sigmas", "timestep_spacing"), "LCM": ()},
)


WARNING = RequestWarning(
    "negative_prompt_ignored", "negative_prompt", "negative_prompt: got 4 characters: ignored"
)


class FakeDrawer:
    """A fake backend that generates images of a plain colour.

    Attributes:
        requests: all requests so far.
        warnings: the warnings of each request.
        error: an error to raise instead of a result.
        late_error: an error to raise after the first step.
        begun: set once a request has arrived.
        gate: while it is closed, generation stops before its second step.
        cancelled: number of calls that were cancelled.
    """

    def __init__(self):
        self.requests = []
        self.warnings = ()
        self.begun = asyncio.Event()
        self.error = None
        self.late_error = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = 0
        self.phase = "ready"
        self.started = {}

    async def stream(self, request, limits):
        self.requests.append(request)
        self.begun.set()
        if self.error:
            raise self.error
        try:
            async for update in self._updates(request):
                yield update
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def _updates(self, request):
        steps = (request.steps or 4) * request.count
        yield Progress(0, 1, steps, self.warnings)
        await self.gate.wait()
        if self.late_error:
            raise self.late_error
        for number in range(request.output.previews):
            yield Preview(0, number, picture(request, request.seed), self.warnings)
            yield Progress(0, number + 2, steps, self.warnings)
        for index in range(request.count):
            seed = request.seed + index
            yield Picture(index, picture(request, seed), seed, 1 + index / 4, self.warnings)

    async def draw(self, request, limits):
        return [each async for each in self.stream(request, limits) if isinstance(each, Picture)]

    async def readiness(self):
        return Readiness(ready=self.phase in {"ready", "scaled-to-zero"}, phase=self.phase)

    async def info(self):
        return INFO if self.phase == "ready" else None

    async def starts(self):
        return self.started


def picture(request, seed):
    """Return a file as an engine would create it."""
    told = provenance.parameters(request, seed=seed, model=CONFIG.model, settings=LIVE.provenance)
    size = (request.width or 64, request.height or 64)
    return encode.encode(Image.new("RGB", size, (seed % 256, 0, 0)), request.output, told)


class Recorder:
    """Metrics as lists."""

    def __init__(self):
        self.answers, self.lookups, self.left = [], [], 0

    def answered(self, route, status, seconds):
        self.answers.append((route, status))

    def cancelled(self):
        self.left += 1

    def looked_up(self, *, hit):
        self.lookups.append(hit)


@pytest.fixture
def backend():
    return FakeDrawer()


@pytest.fixture
def metrics():
    return Recorder()


@pytest.fixture
def service(backend, metrics):
    service = Service(CONFIG, backend, metrics=metrics)
    service.configure(LIVE)
    return service


@pytest.fixture
def configure(service):
    """Change live settings: `configure(limits={"max_side": 64})`."""

    def change(**parts):
        service.configure(LiveConfig.model_validate(LIVE.model_dump() | parts))

    return change


@pytest.fixture
async def app(service):
    app = application(service)
    yield app
    await app.state.jobs.close()


@pytest.fixture
async def http(app):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def opened():
    """Return an image file as Pillow reads it."""
    return lambda data: Image.open(io.BytesIO(data))


@pytest.fixture
def warned(backend):
    """Return a warning of each request, as in JSON responses."""
    backend.warnings = (WARNING,)
    return asdict(WARNING)
