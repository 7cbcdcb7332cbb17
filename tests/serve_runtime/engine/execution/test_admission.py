# SPDX-License-Identifier: Apache-2.0
"""Images are prepared beside the denoising loop, and no request is lost after an error."""

import asyncio
import queue
import threading
from dataclasses import replace

import pytest

from sd_runtime.config import Batching, LiveConfig
from sd_runtime.engine.device import Device
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.execution.admission import Admission
from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.interface import ImageRequest, Picture, Progress
from sd_runtime.engine.request_updates import RequestUpdates
from sd_runtime.errors import GenerationFailed

RED = ImageRequest("a red circle on a white background", "", 64, 64, 6, 4.0, seed=1)


class Told(RequestUpdates):
    """A stream that keeps what it is told for this thread."""

    def __init__(self, tasks):
        super().__init__(tasks, asyncio.new_event_loop())
        self._loop.close()
        self.told = queue.SimpleQueue()

    def put(self, update):
        self.told.put(update)


def stream(count=1):
    asked = replace(RED, count=count)
    return Told([ImageTask(asked, index) for index in range(count)])


class Gate:
    """Prepares images once the test lets it.

    Attributes:
        calls: images of each call.
        error: raised by the next calls.
        failed: returned by them.
    """

    def __init__(self):
        self.calls, self.error, self.failed = [], None, []
        self.entered, self.open = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, tasks):
        self.calls.append(list(tasks))
        self.entered.release()
        assert self.open.acquire(timeout=60)
        if self.error is not None:
            raise self.error
        return self.failed


class Ready:
    """Takes what is handed over."""

    def __init__(self):
        self.found, self._came = [], threading.Semaphore(0)

    def __call__(self, stream):
        self.found.append(stream)
        self._came.release()

    def wait(self, count=1):
        for _ in range(count):
            assert self._came.acquire(timeout=60)
        return self.found


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def ready():
    return Ready()


@pytest.fixture
def admission(gate, ready, observer):
    made = Admission(gate, ready, on=Device("cpu"), observer=observer)
    yield made
    made.close()
    for _ in range(20):
        gate.open.release()


def error_of(stream):
    """What the reader of a stream is told of its failure."""
    error = stream.told.get(timeout=60)
    assert isinstance(error, GenerationFailed)
    return str(error)


def test_requests_are_handed_over_in_the_order_of_arrival_once_they_are_ready(admission, gate, ready):
    streams = [stream(), stream(3), stream()]
    for each in streams:
        admission.put(each)
    assert gate.entered.acquire(timeout=60)
    assert ready.found == []
    assert admission.waiting() == 5
    gate.open.release()
    gate.open.release()
    assert ready.wait(3) == streams
    assert [task for call in gate.calls for task in call] == [task for each in streams for task in each.tasks]


def test_requests_that_arrive_meanwhile_are_prepared_together_a_few_at_a_time(admission, gate, ready):
    admission.put(stream())
    assert gate.entered.acquire(timeout=60)
    for _ in range(9):
        admission.put(stream())
    for _ in range(3):
        gate.open.release()
    ready.wait(10)
    assert [len(call) for call in gate.calls] == [1, 8, 1]


def test_a_cancelled_request_is_not_prepared(admission, gate, ready, observer):
    first, gone, last = stream(), stream(2), stream()
    admission.put(first)
    assert gate.entered.acquire(timeout=60)
    admission.put(gone)
    admission.put(last)
    gone.cancel()
    gate.open.release()
    gate.open.release()
    assert ready.wait(2) == [first, last]
    assert gate.calls == [list(first.tasks), list(last.tasks)]
    assert observer.outcomes == ["cancelled"] * 2


def test_a_request_that_is_cancelled_while_it_is_prepared_goes_no_further(admission, gate, ready, observer):
    gone, last = stream(), stream()
    admission.put(gone)
    assert gate.entered.acquire(timeout=60)
    gone.cancel()
    admission.put(last)
    gate.open.release()
    gate.open.release()
    assert ready.wait() == [last]
    assert observer.outcomes == ["cancelled"]


def test_an_image_that_fails_takes_its_request_along_and_no_other(admission, gate, ready, observer, lines):
    first, bad, good = stream(), stream(2), stream()
    admission.put(first)
    assert gate.entered.acquire(timeout=60)
    admission.put(bad)
    admission.put(good)
    gate.open.release()
    assert ready.wait() == [first]
    assert gate.entered.acquire(timeout=60)
    gate.failed = [(bad.tasks[1], ValueError("a secret prompt"))]
    gate.open.release()
    assert ready.wait() == [first, good]
    assert error_of(bad) == "the pipeline failed with ValueError"
    assert sorted(observer.outcomes) == ["cancelled", "failed"]
    assert "secret" not in str(lines())


def test_a_fault_of_the_device_fails_what_was_prepared_and_not_the_thread(admission, gate, ready, observer):
    lost, next_one = stream(), stream()
    gate.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    admission.put(lost)
    gate.open.release()
    assert error_of(lost) == "the pipeline failed with RuntimeError"
    gate.error = None
    admission.put(next_one)
    gate.open.release()
    assert ready.wait() == [next_one]
    assert observer.outcomes == ["failed"]
    assert admission.waiting() == 0


def test_what_waits_when_it_is_closed_fails_and_what_comes_later_too(admission, gate, ready):
    prepared, waits = stream(), stream()
    admission.put(prepared)
    assert gate.entered.acquire(timeout=60)
    admission.put(waits)
    admission.close()
    gate.open.release()
    assert ready.wait(2) == [prepared, None]
    assert error_of(waits) == "the engine is shut down; send the request again"
    late = stream()
    admission.put(late)
    assert error_of(late) == "the engine is shut down; send the request again"


@pytest.fixture
def encoder(model):
    """Two events: the text encoder has been called; it may go on, as it may until the test says otherwise."""
    entered, go_on = threading.Event(), threading.Event()
    go_on.set()

    def wait(*_):
        entered.set()
        assert go_on.wait(60)

    handle = model.pipeline.text_encoder.register_forward_pre_hook(wait)
    yield entered, go_on
    go_on.set()
    handle.remove()


async def test_no_step_waits_for_a_text_encoder(model, encoder):
    """A running image ends while the prompt of another one is being encoded, which joins once that is over."""
    entered, go_on = encoder
    engine = DiffusionEngine(model, LiveConfig())
    running = engine.generate(replace(RED, steps=60))
    while (await anext(running)).step == 0:
        pass
    entered.clear()
    go_on.clear()
    new = engine.generate(replace(RED, prompt="words that were never encoded"))
    first = asyncio.create_task(anext(new))
    assert await asyncio.to_thread(entered.wait, 60)
    assert isinstance([each async for each in running][-1], Picture)
    assert not first.done()
    go_on.set()
    assert isinstance(await first, Progress)
    assert isinstance([each async for each in new][-1], Picture)
    engine.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_an_engine_whose_admission_has_died_is_not_healthy(model, monkeypatch):
    engine = DiffusionEngine(model, LiveConfig())
    await engine.check()

    def end(_):
        raise SystemExit

    monkeypatch.setattr(engine._admission, "_prepare", end)
    lost = asyncio.create_task(anext(engine.generate(RED)))
    await asyncio.to_thread(engine._admission._thread.join, 60)
    with pytest.raises(GenerationFailed, match="a thread of the engine has stopped"):
        await engine.check()
    engine.close()
    await asyncio.to_thread(engine._worker._thread.join, 60)
    assert not engine._worker.alive
    lost.cancel()


async def test_a_closed_engine_ends_all_its_threads_and_fails_what_is_unfinished(model):
    engine = DiffusionEngine(model, LiveConfig(batching=Batching(max_batch_size=1)))
    running, waiting = engine.generate(replace(RED, steps=100)), engine.generate(RED)
    while (await anext(running)).step == 0:
        pass
    await anext(waiting)
    engine.close()
    for each in (running, waiting, engine.generate(RED)):
        with pytest.raises(GenerationFailed, match="the engine is shut down; send the request again"):
            _ = [update async for update in each]
    for thread in (engine._admission._thread, engine._worker._thread, engine._postprocessor._thread):
        await asyncio.to_thread(thread.join, 60)
        assert not thread.is_alive()
