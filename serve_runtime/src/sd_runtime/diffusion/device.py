# SPDX-License-Identifier: Apache-2.0
"""The device and its threads: who computes where, and who waits for whom."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

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

    def touch(self) -> None:
        """Compute one number; raises where a device fault has made all further work fail."""
        torch.ones(1, device=self.kind).item()

    def enter(self, work: Literal["loading", "preparing", "drawing", "decoding"]) -> None:
        """Called once by each thread that computes.

        On a CPU the thread that draws leaves one core to those that decode, write files and answer requests; `lanes`
        share out what is large. All others compute alone: torch's OpenMP keeps a team of threads for each thread that
        asks for more, and once all teams together have more threads than there are cores, they sleep at each barrier
        instead of waiting awake. On two cores a call of the small UNet took 22 ms in a second team of two, 8 ms in the
        first, and 8 ms on one thread.
        """
        if self.kind == "cpu":
            set_threads(self.drawing_threads() if work == "drawing" else 1)

    def drawing_threads(self) -> int:
        """Threads of an operator on the thread that draws."""
        return max(1, cores() - 1) if self.kind == "cpu" else torch.get_num_threads()

    def mark(self) -> Any:
        """An event that has happened once what this thread queued so far is computed; None where nothing queues."""
        if self.kind != "cuda":
            return None
        event = torch.cuda.Event()
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
        if self.kind != "cuda":
            began = time.monotonic()
            yield
            report(time.monotonic() - began)
            return
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        yield
        end.record()
        self._timed.append((start, end, report))

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
    def side_stream(self) -> Iterator[Any]:
        """Compute on a stream that this thread has for itself; all of it is computed when the block ends.

        On a CPU nothing changes, and no core is counted as busy: what is as short as the encoding of a prompt is over before
        a UNet call on one core less would have gained by it. The stream is None there.
        """
        if self.kind != "cuda":
            yield None
            return
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream()
        with torch.cuda.stream(self._local.stream):
            yield self._local.stream
            self._local.stream.synchronize()

    @contextmanager
    def aside(self, inputs: Sequence[tuple[torch.Tensor, Any]]) -> Iterator[None]:
        """Compute beside the thread that draws, once the inputs are there."""
        if self.kind != "cuda":
            with self._counted():
                yield
            return
        with self.side_stream() as stream:
            for tensor, ready in inputs:
                stream.wait_event(ready)
                tensor.record_stream(stream)
            yield

    def adopt(self, tensors: Iterable[torch.Tensor]) -> None:
        """Let this thread use tensors of another thread's stream: their memory stays theirs until it has."""
        if self.kind == "cuda":
            for tensor in tensors:
                tensor.record_stream(torch.cuda.current_stream())

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

    def free(self) -> int:
        """Bytes of device memory that tensors may still take; 0 where nobody counts."""
        if self.kind != "cuda":
            return 0
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0] + kept)

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
