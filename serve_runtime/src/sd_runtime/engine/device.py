# SPDX-License-Identifier: Apache-2.0
"""The device and its threads: who computes where, and who waits for whom."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_ADA = (8, 9)  # compute capability from which there is float8
_HOPPER = 9  # compute capability from which cuDNN's attention is the fastest
_PRIORITIES = {"drawing": -1, "preparing": 0}  # of streams; less goes first
_AHEAD = 2  # UNet calls that may be queued on a GPU; more would keep new pictures out and cancelled ones in


class Device:
    """What `diffusion` asks of a device, by the kind of it: cuda, mps or cpu.

    Attributes:
        at_work: whether images are being generated.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.at_work = False
        self._queued: deque[Any] = deque()
        self._timed: deque[tuple[Any, Any, Callable[[float], None]]] = deque()
        self._local = threading.local()
        self._aside = 0
        self._lock = threading.Lock()
        self._streams: dict[str, Any] = {}  # by work
        self._preferences = ExitStack()

    def touch(self) -> None:
        """Compute one number; raises where a device fault has made all further work fail."""
        torch.ones(1, device=self.kind).item()

    def enter(self, work: Literal["loading", "preparing", "noise", "drawing", "decoding"]) -> None:
        """Called once by each thread that computes.

        On a CPU the thread that draws leaves one core to those that decode, write files and answer requests; `lanes`
        share out what is large. All others compute alone: torch's OpenMP keeps a team of threads for each thread that
        asks for more, and once all teams together have more threads than there are cores, they sleep at each barrier
        instead of waiting awake. On two cores a call of the small UNet took 22 ms in a second team of two, 8 ms in the
        first, and 8 ms on one thread.

        On CUDA what draws has a stream of its own at high priority: the kernels of text encoders, which have a stream too, and
        of a decoder fill what it leaves free.
        """
        if self.kind == "cpu":
            set_threads(self.runner_threads() if work == "drawing" else 1)
        elif self.kind == "cuda" and work in _PRIORITIES:
            torch.cuda.set_stream(self._stream(work))

    def _stream(self, work: str) -> Any:
        """One for all threads that do this work in turn, so that what they queue is in order; weights are there before it begins."""
        with self._lock:
            if work not in self._streams:
                torch.cuda.synchronize()
                self._streams[work] = torch.cuda.Stream(priority=_PRIORITIES[work])
            return self._streams[work]

    def half(self) -> Literal["float16", "bfloat16"]:
        """The 16-bit format to compute in where nobody chose one: bfloat16 does not overflow."""
        if self.kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16"
        return "float16"

    def has_float8(self) -> bool:
        """Whether the GPU computes in float8: Ada, Hopper, Blackwell."""
        return self.kind == "cuda" and torch.cuda.get_device_capability() >= _ADA

    def name(self) -> str:
        """The name of the GPU's model, or the kind of another device."""
        return str(torch.cuda.get_device_name()) if self.kind == "cuda" else f"a {self.kind.upper()}"

    def prefer_kernels(self) -> None:
        """Have attention try the fastest kernels first, for the life of the process.

        FlashAttention 2 is made for Ampere and Ada. From Hopper on cuDNN's kernels are faster:
        https://pytorch.org/blog/pytorch2-5/.
        """
        if self.kind == "cuda" and torch.cuda.get_device_capability()[0] >= _HOPPER:
            order = [
                SDPBackend.CUDNN_ATTENTION,
                SDPBackend.FLASH_ATTENTION,
                SDPBackend.EFFICIENT_ATTENTION,
                SDPBackend.MATH,
            ]
            self._preferences.enter_context(sdpa_kernel(order, set_priority=True))

    @contextmanager
    def choosing_kernels(self) -> Iterator[None]:
        """Let cuDNN time its convolutions at each new shape and keep the fastest; that takes a part of a second for each.

        What is kept belongs to the thread, so that only graphs captured meanwhile keep the choice for others.
        """
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = self.kind == "cuda"
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before

    def runner_threads(self) -> int:
        """Threads of an operator on the thread that draws."""
        return max(1, cores() - 1) if self.kind == "cpu" else torch.get_num_threads()

    def mark(self) -> Any:
        """An event that has happened once what this thread queued so far is computed; None where nothing queues."""
        if self.kind != "cuda":
            return None
        event = torch.cuda.Event(blocking=True)  # a thread that waits for it sleeps
        event.record()
        return event

    def wait(self, events: Sequence[Any]) -> None:
        """Wait until what was queued before these events is computed."""
        for event in events:
            if event is not None:
                event.synchronize()

    @contextmanager
    def timed(self, report: Callable[[float], None]) -> Iterator[None]:
        """Report the seconds that the device takes for what this block computes; on CUDA at one of the next calls of `pace`."""
        stop = self.stopwatch(report)
        yield
        stop()

    def stopwatch(self, report: Callable[[float], None]) -> Callable[[], None]:
        """Start to measure as `timed` does, until what is returned is called; without that call nothing is reported."""
        if self.kind != "cuda":
            began = time.monotonic()
            return lambda: report(time.monotonic() - began)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()

        def stop() -> None:
            end.record()
            self._timed.append((start, end, report))

        return stop

    def pace(self) -> None:
        """Wait until the device is not far behind this thread."""
        if (event := self.mark()) is not None:
            self._queued.append(event)
            while len(self._queued) > _AHEAD:
                self._queued.popleft().synchronize()
        while self._timed and self._timed[0][1].query():
            start, end, report = self._timed.popleft()
            report(start.elapsed_time(end) / 1000)

    @contextmanager
    def aside(self, inputs: Sequence[tuple[torch.Tensor, Any]]) -> Iterator[None]:
        """Compute beside the thread that draws, once the inputs are there."""
        if self.kind != "cuda":
            with self._counted():
                yield
            return
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream()
        stream = self._local.stream
        with torch.cuda.stream(stream):
            for tensor, ready in inputs:
                stream.wait_event(ready)
                tensor.record_stream(stream)
            yield
            stream.synchronize()

    def adopt(self, tensors: Iterable[torch.Tensor], ready: Any) -> None:
        """Let this thread's stream use tensors of another one: after `ready`, and their memory stays theirs until then."""
        if self.kind == "cuda":
            stream = torch.cuda.current_stream()
            stream.wait_event(ready)
            for tensor in tensors:
                tensor.record_stream(stream)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._aside += 1
        try:
            yield
        finally:
            with self._lock:
                self._aside -= 1

    def beside(self) -> int:
        """How much is computed on the CPU beside the thread that draws: a core each."""
        return self._aside

    def spare(self) -> int:
        """Cores for work beside the thread that draws: all of them while it has nothing to do, else the one that it leaves."""
        return cores() if self.kind == "cpu" and not self.at_work else 1

    def free(self) -> int:
        """Bytes of device memory that tensors may still take; 0 where nobody counts."""
        if self.kind != "cuda":
            return 0
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0] + kept)

    def settle(self) -> None:
        """Wait until all that was queued is computed."""
        if self.kind == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def peak(self, report: Callable[[int], None]) -> Iterator[None]:
        """Report by how many bytes memory in use was higher within this block than before; nothing where nobody counts."""
        if self.kind != "cuda":
            yield
            return
        self.settle()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield
        self.settle()
        report(int(torch.cuda.max_memory_allocated()) - before)

    def used(self) -> int:
        """Bytes of device memory in use; 0 where nobody counts."""
        return int(torch.cuda.memory_allocated()) if self.kind == "cuda" else 0


def set_threads(number: int) -> None:
    """Let operators that this thread calls use so many threads.

    Torch sets the number of a thread again at its first parallel operator: to the latest that any thread has set. A question
    for the number counts as one.
    """
    torch.get_num_threads()
    torch.set_num_threads(number)


def cores() -> int:
    """Cores for drawing: OMP_NUM_THREADS, which Ray sets to a replica's share, or all this process may use."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) > 0 else len(os.sched_getaffinity(0))


def best() -> str:
    """The kind of the best device there is."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
