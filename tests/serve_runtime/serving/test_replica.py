# SPDX-License-Identifier: Apache-2.0
"""The replica around an engine, without Ray."""

import asyncio
import gc
import importlib.util
import sys

import pytest

from sd_runtime.config import LiveConfig, ModelConfig, RuntimeConfig
from sd_runtime.engine.interface import EngineInfo, ImageRequest, Picture, Progress
from sd_runtime.errors import GenerationFailed
from sd_runtime.serving import replica
from sd_runtime.serving.replica import ModelReplica
from sd_runtime.startup import Startup

RED = ImageRequest("a red circle", width=64, height=64, steps=2, guidance=4.0, seed=1)
UPDATES = [Progress(0, 1, 2), Picture(1, b"second", 2), Progress(0, 2, 2), Picture(0, b"first", 1)]


class FakeEngine:
    """Tells what it is given."""

    def __init__(self):
        self.live = None
        self.closed = self.ended = False
        self.error = None

    def info(self):
        return EngineInfo("cpu", "float32", {}, {})

    def configure(self, live):
        self.live = live

    async def generate(self, request):
        try:
            for update in UPDATES:
                yield update
                await asyncio.sleep(0)
            if self.error:
                raise self.error
        finally:
            self.ended = True

    async def check(self):
        if self.error:
            raise self.error

    def close(self):
        self.closed = True


@pytest.fixture
def engine(monkeypatch):
    fake = FakeEngine()
    monkeypatch.setattr(replica, "load_engine", lambda *_: fake)
    return fake


@pytest.fixture
def served(engine):
    return ModelReplica(RuntimeConfig(model=ModelConfig(uri="bundled://shapes")))


async def test_one_answer_holds_the_pictures_in_order(served):
    assert await served.generate(RED) == [Picture(0, b"first", 1), Picture(1, b"second", 2)]


async def test_a_stream_tells_every_update_as_it_comes(served):
    assert [update async for update in served.stream(RED)] == UPDATES


async def test_what_the_first_picture_took_is_told_once(served, monkeypatch):
    told = []
    monkeypatch.setattr(served._starting, "drew", told.append)
    for _ in range(2):
        await served.generate(RED)
    await served._note
    assert len(told) == 1
    assert told[0] >= 0


async def test_closing_a_stream_ends_the_work(served, engine):
    stream = served.stream(RED)
    assert await anext(stream) == UPDATES[0]
    await stream.aclose()
    assert engine.ended


async def test_cancelling_a_call_ends_the_work(served, engine):
    task = asyncio.create_task(served.generate(RED))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.ended


async def test_errors_and_health_are_the_engines(served, engine):
    assert (await served.info()).device == "cpu"
    await served.check_health()
    engine.error = GenerationFailed("broken")
    with pytest.raises(GenerationFailed):
        await served.generate(RED)
    with pytest.raises(GenerationFailed):
        await served.check_health()


def test_settings_go_to_the_engine_and_its_end_ends_the_engine(served, engine):
    served.reconfigure({"batching": {"max_batch_size": 2}})
    assert engine.live == LiveConfig.model_validate({"batching": {"max_batch_size": 2}})
    served.__del__()
    assert engine.closed


async def test_the_real_engine_of_a_configuration(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchao", raising=False)  # and put back at the end
    told = []
    engine = replica.load_engine(
        RuntimeConfig(model=ModelConfig(uri="bundled://shapes")), Startup(told.append)
    )
    assert importlib.util.find_spec("torchao") is None, "diffusers would import it in each start"
    assert list(engine.info().load_seconds) == ["import", "weights", "pipeline", "warmup"]
    assert [each.phase for each in told] == ["import", "weights", "pipeline", "warmup", ""]
    assert told[-1].seconds == engine.info().load_seconds
    assert gc.isenabled()
    assert gc.get_freeze_count() > 100_000  # what torch and diffusers are made of
    gc.unfreeze()
    updates = [update async for update in engine.generate(RED)]
    assert isinstance(updates[-1], Picture)
    engine.close()
