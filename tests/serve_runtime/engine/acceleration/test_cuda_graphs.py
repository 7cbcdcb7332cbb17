# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs on a machine without CUDA: the rules for capture, replay and removal."""

import asyncio
import threading
from contextlib import aclosing
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from sd_runtime.config import LiveConfig, Lora, ModelConfig, RuntimeConfig, WarmupShape
from sd_runtime.engine.acceleration import cuda_graphs
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.interface import ImageRequest, Picture
from sd_runtime.engine.loader import load
from sd_runtime.engine.lora.lora_switch import Active

INK = ImageRequest("a red circle on a white background", "", 64, 64, 4, 4.0, seed=1, loras=("ink",))
BARE, OIL = Active(), Active(("oil",))
FACTORS = {BARE: 2, OIL: 3}


class Loras:
    """A switch that notes what it switches on."""

    def __init__(self):
        self.active, self.switched = BARE, []

    def activate(self, names, strengths=()):
        self.active = Active(names, strengths)
        self.switched.append(self.active)


class Bench:
    """A call that multiplies by a factor of the active LoRAs, warmed for one and for two rows."""

    def __init__(self, **settings):
        self.loras, self.calls = Loras(), 0
        self.graphs = cuda_graphs.Graphs(self._multiplied, self.loras, **settings)
        with self.graphs.capturing():
            self(1)
            self(2)

    def _multiplied(self, samples, *_):
        self.calls += 1
        return samples * FACTORS[self.loras.active]

    def __call__(self, rows=1, value=1.0):
        with torch.inference_mode():
            return self.graphs(torch.full((rows,), value), torch.ones(1), {}).tolist()

    def often(self, active=OIL, rows=1):
        """Call it as often as a capture needs."""
        self.loras.active = active
        for _ in range(cuda_graphs.OFTEN):
            self(rows)

    def idle(self, *, interrupted=lambda: False):
        with torch.inference_mode():
            self.graphs.capture_repeated(interrupted)

    def direct(self, active=OIL, rows=1):
        """Whether a call is made directly; it multiplies all the same."""
        self.loras.active, before = active, self.calls
        assert self(rows, 5.0) == [5.0 * FACTORS[active]] * rows
        return self.calls > before


@pytest.fixture
def bench(cuda):
    cuda.follow()
    return Bench()


def test_loras_that_are_used_often_are_captured_while_nothing_is_drawn(bench, cuda):
    bench.often()
    captured = cuda.captured
    assert bench.direct(), "nothing is captured while requests wait"
    bench.idle()
    assert not bench.direct()
    assert not bench.direct(BARE), "each set has a graph of its own"
    assert bench.direct(OIL, rows=2), "and each shape"
    assert cuda.captured == captured + 1


def test_a_set_that_was_used_once_or_at_a_size_that_was_not_warmed_is_not_captured(bench, cuda):
    captured = cuda.captured
    bench.direct(OIL, rows=2)
    bench.often(OIL, rows=3)
    bench.often(OIL, rows=1)
    bench.idle()
    assert cuda.captured == captured + 1
    assert [bench.direct(OIL, rows) for rows in (1, 2, 3)] == [False, True, True]


def test_after_a_capture_the_loras_are_on_that_were_on_before(bench):
    bench.often()
    bench.loras.active = BARE
    bench.idle()
    assert bench.loras.switched == [OIL, BARE]


@pytest.mark.parametrize("looks", range(3))
def test_a_request_that_arrives_during_a_capture_waits_for_one_call(bench, cuda, looks):
    """The capture is dropped, and repeated when nothing is drawn again."""
    bench.often()
    captured, before = cuda.captured, bench.calls
    answers = iter([False] * looks + [True] * 9)
    bench.idle(interrupted=lambda: next(answers))
    assert bench.calls - before == looks
    assert cuda.captured == captured
    assert bench.direct()
    bench.idle()
    assert not bench.direct()


def test_what_is_still_being_compiled_is_not_captured_yet(cuda):
    cuda.follow()
    done = []
    bench = Bench(compiling=lambda *_: not done)
    bench.often()
    bench.idle()
    assert bench.direct()
    done.append(True)
    bench.idle()
    assert not bench.direct()


def test_a_lora_that_goes_takes_its_graphs_along(bench):
    bench.often()
    bench.idle()
    bench.graphs.forget("ink")
    assert not bench.direct()
    bench.graphs.forget("oil")
    assert bench.direct()
    assert not bench.direct(BARE)


def test_a_switch_that_fails_at_a_capture_harms_no_request(bench, lines):
    def refuse(*_):
        raise ValueError("no")

    bench.often()
    bench.loras.activate = refuse
    bench.idle()
    assert "because switching LoRAs failed: ValueError: no" in lines()[-1]["message"]
    assert bench.direct()


def test_strengths_of_a_client_push_no_more_out_than_are_counted(monkeypatch, bench):
    monkeypatch.setattr(cuda_graphs, "_COUNTED", 2)
    for strength in range(5):
        active = Active(("oil",), (("oil", float(strength)),))
        monkeypatch.setitem(FACTORS, active, 4)
        bench.direct(active)
    assert len(bench.graphs._direct) == 2


def test_a_graph_belongs_to_the_loras_that_acted_in_it(cuda):
    """Their weights are in it: without it another LoRA would draw what the first one draws."""

    class Loras:
        active = ("ink",)

    loras, factor = Loras(), {("ink",): 2, ("oil",): 3}
    call = cuda_graphs.Graphs(lambda samples, *_: samples * factor[loras.active], loras)
    cuda.follow()
    with call.capturing():
        call(torch.ones(1), torch.ones(1), {})
    assert call(torch.ones(1), torch.ones(1), {}).item() == 2
    loras.active = ("oil",)
    assert call(torch.ones(1), torch.ones(1), {}).item() == 3


def test_of_many_graphs_the_oldest_goes(monkeypatch, cuda):
    monkeypatch.setattr(cuda_graphs, "KEPT", 2)

    class Loras:
        active = ()

    call = cuda_graphs.Graphs(lambda samples, *_: samples * 2, Loras())
    with call.capturing():
        for rows in (1, 2, 1, 3):
            call(torch.ones(rows), torch.ones(1), {})
    captured, replayed = cuda.captured, cuda.replayed
    assert captured == 3
    for rows in (1, 2, 3):
        assert call(torch.full((rows,), 2.0), torch.ones(1), {}).tolist() == [4.0] * rows
    assert (cuda.captured, cuda.replayed - replayed) == (captured, 2)


def test_a_call_that_looks_at_its_result_is_not_captured(cuda, lines):
    class Loras:
        active = ()

    call = cuda_graphs.Graphs(lambda samples, *_: samples * samples.sum().item(), Loras())
    cuda.follow()
    with call.capturing():
        assert call(torch.ones(2), torch.ones(1), {}).tolist() == [2.0, 2.0]
    assert cuda.captured == 0
    assert "a CUDA graph was not captured" in lines()[-1]["message"]


@pytest.fixture
def styled(cuda, model, tmp_path):
    """The bundled model with a random LoRA, on the device."""
    torch.manual_seed(1)
    tensors = {}
    for name, module in model.pipeline.unet.named_modules():
        if name.endswith(("to_q", "to_v")):
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn(2, module.in_features)
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn(module.out_features, 2) / 8
    save_file(tensors, tmp_path / "ink.safetensors")
    return load(
        RuntimeConfig(
            model=ModelConfig(uri="bundled://shapes", dtype="float32"),
            loras=(Lora(name="ink", uri=f"file://{tmp_path}/ink.safetensors"),),
            warmup=(WarmupShape(width=64, height=64),),
        )
    )


@pytest.fixture
def captured_more(monkeypatch, cuda, styled):
    """Set once something has been captured while nothing was drawn."""
    found, before, captured = threading.Event(), cuda.captured, styled.tuned.graphs.capture_repeated

    def noted(interrupted):
        captured(interrupted)
        if cuda.captured > before:
            found.set()

    monkeypatch.setattr(styled.tuned.graphs, "capture_repeated", noted)
    return found


def test_the_engine_captures_loras_while_it_is_idle_and_draws_the_same_with_them(
    monkeypatch, cuda, styled, captured_more
):
    monkeypatch.setattr(cuda_graphs, "OFTEN", 4)
    replayed = cuda.replayed

    async def drawn(engine, request):
        async with aclosing(engine.generate(request)) as updates:
            return [update.data async for update in updates if isinstance(update, Picture)]

    async def twice():
        engine = DiffusionEngine(styled, LiveConfig())
        engine._worker.idle_seconds = 0.01
        try:
            direct = await drawn(engine, INK)
            assert cuda.replayed == replayed
            assert await asyncio.to_thread(captured_more.wait, 60)
            bare = await drawn(engine, replace(INK, loras=()))
            return direct, await drawn(engine, INK), bare
        finally:
            engine.close()

    direct, captured_too, bare = asyncio.run(twice())
    assert direct == captured_too != bare
    assert cuda.replayed == replayed + 8
