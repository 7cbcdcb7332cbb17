# SPDX-License-Identifier: Apache-2.0
"""The reports of a device. Its CUDA events follow a clock that the test controls."""

import threading
from typing import ClassVar

import pytest
import torch

from sd_runtime.engine.acceleration.cuda_graphs import Graphs
from sd_runtime.engine.device import Device, set_threads


class Event:
    """An event of CUDA; it has happened once the test says so."""

    made: ClassVar = []

    def __init__(self, *, enable_timing=False, blocking=False):
        self.at, self.happened, self.timing = None, False, enable_timing
        Event.made.append(self)

    def record(self):
        self.at = 0.0

    def query(self):
        return self.happened

    def synchronize(self):
        self.happened = True

    def elapsed_time(self, other):
        assert self.timing
        assert other.happened
        return other.at - self.at


@pytest.fixture
def cuda(monkeypatch):
    Event.made.clear()
    monkeypatch.setattr(torch.cuda, "Event", Event)
    return Device("cuda")


def test_a_step_is_timed_by_the_device_and_not_by_its_launch(cuda):
    """The launch is over in no time; what the device takes is known once its event has happened."""
    reported = []
    with cuda.timed(reported.append):
        pass
    start, end = Event.made
    cuda.pace()
    assert reported == []
    start.happened, end.happened, end.at = True, True, 250.0
    cuda.pace()
    assert reported == [0.25]


def test_a_cpu_computes_while_it_is_called():
    reported = []
    with Device("cpu").timed(reported.append):
        assert reported == []
    assert len(reported) == 1


def test_a_thread_keeps_its_number_of_threads_whatever_others_set():
    """Torch would take over the latest number that any thread has set, at the first parallel operator."""
    found, entered, others = [], threading.Event(), threading.Event()

    def one():
        set_threads(1)
        entered.set()
        others.wait(60)
        torch.ones(512, 512) @ torch.ones(512, 512)
        found.append(torch.get_num_threads())

    before = torch.get_num_threads()
    thread = threading.Thread(target=one)
    thread.start()
    entered.wait(60)
    torch.set_num_threads(3)
    others.set()
    thread.join()
    torch.set_num_threads(before)
    assert found == [1]


def test_a_graph_that_cannot_be_captured_is_not_tried_again(monkeypatch, lines):
    """Memory runs out while it is captured: the call is made directly, now and from then on."""
    tries = []

    def capture(_, inputs, __):
        tries.append(inputs)
        raise torch.OutOfMemoryError("CUDA out of memory")

    class Loras:
        active = ()

    monkeypatch.setattr(Graphs, "_capture", capture)
    call = Graphs(lambda samples, *_: samples * 2, Loras())
    with call.capturing():
        for _ in range(3):
            assert call(torch.ones(1), torch.ones(1), {}).item() == 2
    assert len(tries) == 1
    assert "a CUDA graph was not captured" in lines()[-1]["message"]


class Stream:
    """A stream of CUDA that notes what is asked of it."""

    def __init__(self, priority=0):
        self.priority, self.waited_for = priority, []

    def wait_event(self, event):
        self.waited_for.append(event)


class Memory:
    """A tensor that notes which streams use it."""

    def __init__(self):
        self.used_by = []

    def record_stream(self, stream):
        self.used_by.append(stream)


@pytest.fixture
def current(monkeypatch):
    """The stream of this thread."""
    found = [Stream()]
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "set_stream", found.append)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: found[-1])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return found


def test_preparing_has_a_stream_of_its_own_that_denoising_goes_before(cuda, current):
    for work in ("drawing", "preparing", "drawing", "preparing"):
        cuda.enter(work)
    _, task, preparing, *again = current
    assert again == [task, preparing]
    assert task.priority < preparing.priority


def test_what_another_stream_prepared_is_waited_for_by_the_device_and_its_memory_kept(cuda, current):
    noise = Memory()
    cuda.enter("drawing")
    cuda.adopt([noise], "ready")
    assert noise.used_by == [current[-1]]
    assert current[-1].waited_for == ["ready"]


def test_a_cpu_has_nothing_to_wait_for():
    device = Device("cpu")
    device.adopt([torch.ones(1)], device.mark())
    device.wait([device.mark()])
