# SPDX-License-Identifier: Apache-2.0
"""The device and its threads: where each thread computes, and which work waits for which."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_ADA = (8, 9)  # the first compute capability with float8
_HOPPER = 9  # the first compute capability on which cuDNN's attention is the fastest
_PRIORITIES = {"drawing": -1, "preparing": 0}  # of streams; the lowest number goes first
_AHEAD = 2  # UNet calls that may be queued on a GPU; more would delay new images and cancellations


class Device:
    """The operations of a device that the engine needs, for each device type: cuda, mps or cpu.

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
        """Compute one number; the call raises if a device fault has made all further work fail."""
        torch.ones(1, device=self.kind).item()

    def enter(self, work: Literal["loading", "preparing", "noise", "drawing", "decoding"]) -> None:
        """Set up the calling thread for its work; each thread that computes calls this once.

        On a CPU the denoising thread leaves one core to the threads that decode, write files and answer requests.
        `CpuRows` splits large calls over the cores. All other threads compute on one core each. The reason is
        torch's OpenMP: it keeps a team of threads for each thread that uses more than one. Once all teams together
        have more threads than there are cores, the threads sleep at each barrier instead of waiting awake. On two
        cores a call of the small UNet took 22 ms in a second team of two, 8 ms in the first, and 8 ms on one thread.

        On CUDA the denoising thread has its own stream at high priority. The kernels of the text encoders, which
        have a stream too, and of the decoder fill the time that the runner leaves free.
        """
        if self.kind == "cpu":
            set_threads(self.runner_threads() if work == "drawing" else 1)
        elif self.kind == "cuda" and work in _PRIORITIES:
            torch.cuda.set_stream(self._stream(work))

    def _stream(self, work: str) -> Any:
        """Return the stream for a type of work.

        All threads that do this work in turn share the stream, so that their calls stay in order. The weights are
        on the device before the stream is created.
        """
        with self._lock:
            if work not in self._streams:
                torch.cuda.synchronize()
                self._streams[work] = torch.cuda.Stream(priority=_PRIORITIES[work])
            return self._streams[work]

    def half(self) -> Literal["float16", "bfloat16"]:
        """Return the default 16-bit format: bfloat16 where the GPU has it, since bfloat16 does not overflow."""
        if self.kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16"
        return "float16"

    def has_float8(self) -> bool:
        """Whether the GPU computes in float8: Ada, Hopper and Blackwell do."""
        return self.kind == "cuda" and torch.cuda.get_device_capability() >= _ADA

    def name(self) -> str:
        """Return the name of the GPU's model, or the device type where there is no CUDA GPU."""
        return str(torch.cuda.get_device_name()) if self.kind == "cuda" else f"a {self.kind.upper()}"

    def prefer_kernels(self) -> None:
        """Make attention try the fastest kernels first, for the life of the process.

        FlashAttention 2 is made for Ampere and Ada. On Hopper and later GPUs, cuDNN's kernels are faster:
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
        """Within this block cuDNN times its convolutions at each new shape and keeps the fastest.

        The timing takes a fraction of a second for each shape. The choice belongs to the thread. Other threads
        profit from the choice only through the CUDA graphs that are captured within the block.
        """
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = self.kind == "cuda"
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before

    def runner_threads(self) -> int:
        """Return how many threads an operator may use on the denoising thread."""
        return max(1, cores() - 1) if self.kind == "cpu" else torch.get_num_threads()

    def mark(self) -> Any:
        """Record and return an event that completes when the work queued by this thread so far is computed.

        The result is None on devices without a queue.
        """
        if self.kind != "cuda":
            return None
        event = torch.cuda.Event(blocking=True)  # a thread that waits for the event sleeps
        event.record()
        return event

    def wait(self, events: Sequence[Any]) -> None:
        """Wait until the work that was queued before these events is computed."""
        for event in events:
            if event is not None:
                event.synchronize()

    @contextmanager
    def timed(self, report: Callable[[float], None]) -> Iterator[None]:
        """Report the seconds that the device takes for the work of this block.

        On CUDA the report comes during one of the next calls of `pace`.
        """
        stop = self.stopwatch(report)
        yield
        stop()

    def stopwatch(self, report: Callable[[float], None]) -> Callable[[], None]:
        """Start a measurement as `timed` does, and return the function that stops it.

        Without a call of that function nothing is reported.
        """
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
        """Wait until at most `_AHEAD` UNet calls are queued on the device, then report finished measurements."""
        if (event := self.mark()) is not None:
            self._queued.append(event)
            while len(self._queued) > _AHEAD:
                self._queued.popleft().synchronize()
        while self._timed and self._timed[0][1].query():
            start, end, report = self._timed.popleft()
            report(start.elapsed_time(end) / 1000)

    @contextmanager
    def aside(self, inputs: Sequence[tuple[torch.Tensor, Any]]) -> Iterator[None]:
        """Compute beside the denoising thread, after the inputs are ready."""
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
        """Let this thread's stream use tensors of another stream.

        This thread's stream waits for the event `ready`. The allocator reuses the memory of the tensors only after
        this stream has finished with them.
        """
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
        """Return how many CPU cores compute beside the denoising thread; each computation takes one core."""
        return self._aside

    def spare(self) -> int:
        """Return the number of cores for work beside the denoising thread.

        On a CPU all cores are available while no image is generated. Otherwise one core is.
        """
        return cores() if self.kind == "cpu" and not self.at_work else 1

    def free(self) -> int:
        """Return the bytes of device memory that are free for tensors; 0 on devices that do not count memory."""
        if self.kind != "cuda":
            return 0
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0] + kept)

    def settle(self) -> None:
        """Wait until all queued work is computed."""
        if self.kind == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def peak(self, report: Callable[[int], None]) -> Iterator[None]:
        """Report the peak of memory in use within this block, in bytes above the use before the block.

        Devices that do not count memory report nothing.
        """
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
        """Return the bytes of device memory in use; 0 on devices that do not count memory."""
        return int(torch.cuda.memory_allocated()) if self.kind == "cuda" else 0


def set_threads(number: int) -> None:
    """Set how many threads the operators of the calling thread may use.

    At a thread's first parallel operator, torch overwrites that thread's number with the latest one that any thread
    has set. A call of `get_num_threads` counts as such an operator, so this function calls it first.
    """
    torch.get_num_threads()
    torch.set_num_threads(number)


def cores() -> int:
    """Return the number of CPU cores for computing.

    The number is OMP_NUM_THREADS, which Ray sets to a replica's share. Without it, the number is all cores that
    this process may use.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) > 0 else len(os.sched_getaffinity(0))


def best() -> str:
    """Return the type of the best available device: cuda, mps or cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
