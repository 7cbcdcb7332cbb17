# SPDX-License-Identifier: Apache-2.0
"""Compiled calls in the background. torch really traces, and a stand-in replaces its code generator."""

import threading
import time
from dataclasses import replace

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from sd_runtime.config import Batching, Defaults, LiveConfig, Lora, ModelConfig, Optimizations, RuntimeConfig
from sd_runtime.engine.acceleration import compiled
from sd_runtime.engine.acceleration.compiled import CompiledCall, Compiler
from sd_runtime.engine.device import Device
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.interface import ImageRequest, Picture
from sd_runtime.engine.loader import load
from sd_runtime.observability.observer import Silent
from sd_runtime.startup import Startup

RED = ImageRequest("a red circle on a white background", "", 64, 64, 3, 4.0, seed=1)
_SECONDS = 120.0


class StandIn:
    """What torch's compiler hands its graphs to: it notes the threads and may be held."""

    def __init__(self):
        self.graphs, self.threads, self.gate = 0, set(), threading.Event()
        self.gate.set()

    def __call__(self, graph, _, **__):
        self.graphs += 1
        self.threads.add(threading.current_thread().name)
        self.gate.wait(_SECONDS)
        return graph.forward


@pytest.fixture
def stand_in(monkeypatch):
    torch._dynamo.reset()
    made = StandIn()
    monkeypatch.setattr(compiled, "BACKEND", made)
    yield made
    made.gate.set()


class Calls(Silent):
    """Counts calls of networks by the code that they ran."""

    def __init__(self):
        self.compiled, self.eager, self.ready = 0, 0, 0

    def network_call(self, compiled, ready):
        self.ready = max(self.ready, ready)
        if compiled:
            self.compiled += 1
        else:
            self.eager += 1


def until(condition):
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def call(stand_in):
    """A small network that is compiled beside, and how its calls ran."""
    network, seen = torch.nn.Linear(4, 4), []
    device = Device("cpu")

    compiler = Compiler(device)

    def build(**how):
        made = CompiledCall("network", network, compiler, device=device, **how)
        made.on_call = lambda compiled, ready: seen.append((compiled, ready))
        return made, seen

    yield build
    compiler.close()


def used(made, *shape):
    with torch.inference_mode():
        return made(torch.ones(shape))


def test_an_unseen_shape_runs_as_it_is_and_the_next_time_compiled(call, stand_in):
    made, seen = call()
    stand_in.gate.clear()
    before = used(made, 2, 4)
    used(made, 2, 4)
    assert seen == [(False, 0), (False, 0)], "nobody waits for the compiler"
    stand_in.gate.set()
    until(lambda: used(made, 2, 4) is not None and seen[-1] == (True, 1))
    assert torch.equal(used(made, 2, 4), before)
    assert stand_in.threads == {"compiling"}


def test_more_shapes_than_torch_compiles_by_itself(call):
    """Eight is its own limit for a function, a setting that each thread has to itself."""
    made, seen = call()
    for rows in range(1, 13):
        used(made, rows, 4)
    until(lambda: used(made, 1, 4) is not None and seen[-1][1] == 12)
    seen.clear()
    for rows in range(1, 13):
        used(made, rows, 4)
    assert all(compiled for compiled, _ in seen)


def test_a_client_cannot_have_any_number_compiled(call, stand_in, lines):
    made, seen = call(most=2)
    for rows in range(1, 9):
        used(made, rows, 4)
    until(lambda: used(made, 1, 4) is not None and seen[-1] == (True, 2))
    assert stand_in.graphs == 2
    assert used(made, 7, 4) is not None
    assert seen[-1] == (False, 2)
    assert len([each for each in lines() if "others run uncompiled" in each["message"]]) == 1


def test_threads_are_alike_where_code_is_compiled_and_where_it_runs(call):
    """Torch's guards hold their number: with another one the code would not be used."""
    made, seen = call()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        used(made, 2, 4)
        until(lambda: used(made, 2, 4) is not None and seen[-1][0])
    finally:
        torch.set_num_threads(before)


def test_what_does_not_compile_runs_as_it_is(call, monkeypatch, lines):
    def broken(*_, **__):
        raise OSError("no C++ compiler")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    made, seen = call()
    used(made, 2, 4)
    until(lambda: made.failure)
    assert "no C++ compiler" in made.failure
    used(made, 2, 4)
    assert seen[-1] == (False, 0)
    until(lambda: any(made.failure == each["message"] for each in lines()))


@pytest.fixture
def loaded(tiny_folder):
    """A small model that is to be compiled: to trace the bundled one takes seconds a time."""

    made = []

    def build(startup=None, *, compiled=True, **more):
        model = ModelConfig(uri=f"file://{tiny_folder}")
        config = RuntimeConfig(model=model, optimizations=Optimizations(compile=compiled), **more)
        made.append(load(config, startup))
        return made[-1]

    yield build
    for each in (call for model in made for call in model.tuned.compiled):
        each.close()


@pytest.fixture(scope="module")
def lora_file(tiny_folder, tmp_path_factory):
    """A random LoRA of its attention."""
    torch.manual_seed(5)
    tensors = {}
    for name, module in diffusers.UNet2DConditionModel.from_pretrained(tiny_folder / "unet").named_modules():
        if name.endswith(("to_q", "to_v")):
            rows, columns = module.weight.shape
            tensors[f"unet.{name}.lora_A.weight"] = 0.5 * torch.randn(2, columns)
            tensors[f"unet.{name}.lora_B.weight"] = 0.5 * torch.randn(rows, 2)
    file = tmp_path_factory.mktemp("lora") / "ink.safetensors"
    save_file(tensors, file)
    return file


@pytest.fixture
def few(monkeypatch):
    """A start that compiles for batches of two: to trace a UNet takes seconds."""
    monkeypatch.setattr("sd_runtime.engine.execution.warmup.Batching", lambda: Batching(max_batch_size=2))


SMALL = LiveConfig(batching=Batching(max_batch_size=2, max_wait_milliseconds=0))


async def drawn(engine, request):
    return [update async for update in engine.generate(request)][-1]


@pytest.mark.parametrize("threads", ["1", "4"])
async def test_the_first_request_runs_compiled_guided_or_not(few, loaded, stand_in, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    model, calls = loaded(), Calls()
    assert set(model.seconds) >= {"compile"}
    engine = DiffusionEngine(model, SMALL, calls)
    for guidance in (4.0, 1.0):
        assert isinstance(await drawn(engine, replace(RED, guidance=guidance)), Picture)
    engine.close()
    assert (calls.eager, calls.compiled > 0) == (0, True)


async def test_a_neighbour_does_not_wait_for_a_size_that_compiles(few, loaded, stand_in):
    """Held for as long as the test likes, the compiler delays neither the request that needs it nor others."""
    model, calls = loaded(), Calls()
    engine = DiffusionEngine(model, SMALL, calls)
    stand_in.gate.clear()
    graphs = stand_in.graphs
    assert isinstance(await drawn(engine, replace(RED, width=128)), Picture)
    until(lambda: stand_in.graphs > graphs)
    assert calls.eager > 0
    before = calls.compiled
    assert isinstance(await drawn(engine, RED), Picture)
    assert calls.compiled > before
    stand_in.gate.set()
    engine.close()


async def test_settings_and_loras_are_compiled_after_the_start(few, loaded, stand_in, lora_file):
    model = loaded(loras=(Lora(name="ink", uri=f"file://{lora_file}"),))
    unet = model.tuned.compiled[0]
    known = set(unet._wanted)
    engine = DiffusionEngine(model, SMALL, Calls())
    until(lambda: any(key[0].names == ("ink",) for key in unet._ready))
    engine.configure(SMALL.model_copy(update={"defaults": Defaults(width=96, height=64)}))
    until(lambda: any(key[2][0][2:] == (8, 12) for key in unet._wanted.keys() - known))
    engine.close()


def test_a_lora_runs_compiled_as_it_draws_uncompiled(few, loaded, stand_in, bench, lora_file):
    ink = (Lora(name="ink", uri=f"file://{lora_file}", strength=0.8),)
    model = loaded(loras=ink)
    plain = loaded(compiled=False, loras=ink)
    request = replace(RED, loras=("ink",))
    expected = bench(plain).latents(request)[0]
    unet, ran = model.tuned.compiled[0], []
    unet.on_call = lambda compiled, _: ran.append(compiled)
    model.device.enter("drawing")

    for codes in ({False}, {True}):
        (found,) = bench(model).latents(request)
        assert (found - expected).abs().max() <= 1e-4
        assert set(ran) == codes
        ran.clear()
        until(lambda: all(done.is_set() for done in unet._wanted.values()))
    bare, other = bench(model).latents(RED), bench(plain).latents(RED)
    assert (bare[0] - other[0]).abs().max() <= 1e-4
    wanted = len(unet._wanted)
    bench(model).latents(replace(request, lora_strengths=(("ink", 0.123),)))
    assert len(unet._wanted) == wanted, "any number of strengths may be asked for"


def test_an_engine_that_has_ended_compiles_nothing_more(call, stand_in):
    made, _ = call()
    made.close()
    used(made, 2, 4)
    until(lambda: not made._compiler._thread.is_alive())
    assert stand_in.graphs == 0


def test_a_model_that_does_not_compile_starts_and_says_so(few, loaded, stand_in, monkeypatch):
    def broken(*_, **__):
        raise OSError("no C++ compiler")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    startup = Startup()
    loaded(startup)
    (words,) = [each for each in startup.report().warnings if "UNet" in each]
    assert "cannot be compiled and runs uncompiled" in words
