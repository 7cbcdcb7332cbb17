# SPDX-License-Identifier: Apache-2.0
"""What a device reports, with events of CUDA played by a clock that the test turns."""

import threading
from typing import ClassVar

import pytest
import torch

from sd_runtime.diffusion.device import Device, set_threads
from sd_runtime.diffusion.graphs import Graphs


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

    def capture(_, inputs):
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
