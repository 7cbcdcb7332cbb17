# SPDX-License-Identifier: Apache-2.0
"""What a device reports, with events of CUDA played by a clock that the test turns."""

import threading
from contextlib import contextmanager
from typing import ClassVar

import pytest
import torch

from sd_runtime.diffusion.device import Device, set_threads
from sd_runtime.diffusion.graphs import Graphs


class Event:
    """An event of CUDA; it has happened once the test says so."""

    made: ClassVar = []

    def __init__(self, *, enable_timing=False):
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

    def capture(_, inputs):
        tries.append(inputs)
        raise torch.OutOfMemoryError("CUDA out of memory")

    class Loras:
        active = ()

    monkeypatch.setattr(Graphs, "_capture", capture)
    call = Graphs(lambda samples, *_: samples * 2, Loras())
    for _ in range(3):
        assert call(torch.ones(1), torch.ones(1), {}).item() == 2
    assert len(tries) == 1
    assert "a CUDA graph was not captured" in lines()[-1]["message"]


class Stream:
    """A stream of CUDA that notes what is asked of it."""

    def __init__(self):
        self.waited_for, self.synchronized = [], 0

    def wait_event(self, event):
        self.waited_for.append(event)

    def synchronize(self):
        self.synchronized += 1


class Memory:
    """A tensor that notes which streams use it."""

    def __init__(self):
        self.used_by = []

    def record_stream(self, stream):
        self.used_by.append(stream)


@pytest.fixture
def streams(monkeypatch):
    """The stack of streams that are current; at its bottom the default one."""
    stack = [Stream()]

    @contextmanager
    def current(stream):
        stack.append(stream)
        yield
        stack.pop()

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stack[-1])
    return stack


def test_what_a_thread_prepares_on_its_own_stream_is_there_when_the_block_ends(cuda, streams):
    found = []
    for _ in range(2):
        with cuda.side_stream() as own:
            assert streams[-1] is own
            assert own.synchronized == len(found)
            found.append(own)
        assert own.synchronized == len(found)
    assert found[0] is found[1] is not streams[0]
    others = []

    def elsewhere():
        with cuda.side_stream() as own:
            others.append(own)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert others[0] is not found[0]


def test_work_aside_waits_for_its_inputs_and_keeps_their_memory(cuda, streams):
    latents = Memory()
    with cuda.aside([(latents, "computed")]):
        own = streams[-1]
        assert own.waited_for == ["computed"]
        assert latents.used_by == [own]
    assert own.synchronized == 1


def test_memory_of_another_threads_stream_is_kept_until_this_one_has_used_it(cuda, streams):
    noise = Memory()
    cuda.adopt([noise])
    assert noise.used_by == [streams[0]]


def test_on_a_cpu_preparing_takes_no_core_from_denoising():
    device = Device("cpu")
    with device.side_stream() as stream:
        assert stream is None
        assert device.beside() == 0
    with device.aside([]):
        assert device.beside() == 1
    device.adopt([torch.ones(1)])
