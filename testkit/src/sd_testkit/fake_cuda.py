# SPDX-License-Identifier: Apache-2.0
"""A simulated CUDA device for machines without one.

The device runs operators on the CPU and checks stream synchronisation.

Work on one stream happens in order. Work on two streams happens in any order, unless an event, a wait or a read by
the host orders it. Each stream and each thread therefore has a vector clock, and each storage records its readers and
writers. An access that another stream could overtake is a race, and the device records it. The device also records
memory that is freed while a stream still uses it and the allocator has no record of that use.
A graph records the operators of its capture and replays them on the current content of its inputs. The host cannot
read a result within a capture. The device does not count memory: tests set the free amount.
"""

import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GIB = 2**30
LOOKS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero"}

Clock = Counter[int]


@dataclass
class Use:
    """The streams that use a storage.

    Attributes:
        home: the stream on which the storage was allocated.
        written: stream and time of the last write.
        reads: time of the reads since the last write, by stream.
        recorded: streams that were reported to the allocator.
        uses: time of the last use, by stream.
        tensors: number of tensors that share the storage.
    """

    home: int
    written: tuple[int, int]
    reads: Clock = field(default_factory=Counter)
    recorded: set[int] = field(default_factory=set)
    uses: Clock = field(default_factory=Counter)
    tensors: int = 0


class Cuda:
    """The simulated device.

    Attributes:
        races: errors found, as messages. A test expects an empty list.
        captured, replayed: number of graphs captured and replayed.
        waits: number of events that a thread has waited for.
        free: bytes that are free.
    """

    def __init__(self) -> None:
        self.races: list[str] = []
        self.captured = self.replayed = self.waits = 0
        self.free = 40 * GIB
        self.streams: list[Stream] = []
        self._uses: dict[int, Use] = {}
        self._local = threading.local()
        self._lock = threading.RLock()
        self.default = Stream(self)

    # State of a thread.

    @property
    def current(self) -> "Stream":
        """The current stream of this thread."""
        return getattr(self._local, "stream", self.default)

    @current.setter
    def current(self, stream: "Stream") -> None:
        self._local.stream = stream

    @property
    def host(self) -> Clock:
        """The clock of this thread: the work that it knows to be complete."""
        if not hasattr(self._local, "host"):
            self._local.host = Counter()
        host: Clock = self._local.host
        return host

    @property
    def capture(self) -> "Graph | None":
        """The graph that this thread is capturing."""
        return getattr(self._local, "capture", None)

    @capture.setter
    def capture(self, graph: "Graph | None") -> None:
        self._local.capture = graph

    def follow(self) -> None:
        """Start to record the operators of this thread."""
        if not hasattr(self._local, "mode"):
            self._local.mode = Followed(self)
            self._local.mode.__enter__()

    def leave(self) -> None:
        """Stop recording the operators of this thread."""
        if hasattr(self._local, "mode"):
            self._local.mode.__exit__(None, None, None)
            del self._local.mode

    # Operators.

    def run(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run an operator on the current stream."""
        looks = _schema(call).name in LOOKS
        if looks and self.capture is not None:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        result = call(*args, **kwargs)
        with self._lock:
            self._note(call, args, kwargs, result)
            if looks:
                self.host.update(self.current.clock - self.host)
        if self.capture is not None:
            self.capture.calls.append((call, args, kwargs, result))
        return result

    def _note(self, call: Any, args: Any, kwargs: Any, result: Any) -> None:
        stream = self.current
        stream.see(self.host)
        stream.clock[stream.number] += 1
        given = {_storage(each): each for each in _tensors((args, kwargs))}
        written = set(_written(call, args, kwargs))
        for storage in given:
            self._read_or_write(call, storage, writes=storage in written)
        for each in _tensors(result):
            if (storage := _storage(each)) not in given:
                self._uses[storage] = Use(stream.number, (stream.number, stream.clock[stream.number]))
            if (use := self._uses.get(storage)) is not None:
                use.tensors += 1
                weakref.finalize(each, self._gone, storage, use)

    def _gone(self, storage: int, use: Use) -> None:
        """Count down the tensors of a storage. The storage is freed with its last tensor."""
        with self._lock:
            use.tensors -= 1
            if use.tensors:
                return
            if self._uses.get(storage) is use:
                del self._uses[storage]
            seen = self.streams[use.home].clock | self.host
            for stream, at in use.uses.items():
                if stream not in {use.home, *use.recorded} and at > seen[stream]:
                    self.races.append(
                        f"memory of stream {use.home} is given back while stream {stream} uses it"
                    )

    def _read_or_write(self, call: Any, storage: int, *, writes: bool) -> None:
        use, stream = self._uses.get(storage), self.current
        if use is None:
            return  # The storage is older than the recording, as weights are.
        writer, at = use.written
        if at > stream.clock[writer]:
            self.races.append(
                f"{call} on stream {stream.number} does not wait for what stream {writer} writes"
            )
        use.uses[stream.number] = stream.clock[stream.number]
        if writes:
            late = [reader for reader, at in use.reads.items() if at > stream.clock[reader]]
            self.races += [
                f"{call} on stream {stream.number} writes what stream {reader} reads" for reader in late
            ]
            use.written, use.reads = (stream.number, stream.clock[stream.number]), Counter()
        else:
            use.reads[stream.number] = stream.clock[stream.number]

    def record(self, tensor: torch.Tensor, stream: "Stream") -> None:
        """Record that a stream uses a tensor, as `Tensor.record_stream` does."""
        if (use := self._uses.get(_storage(tensor))) is not None:
            use.recorded.add(stream.number)

    def synchronize(self) -> None:
        """Wait until all queued work is complete."""
        with self._lock:
            for stream in self.streams:
                self.host.update(stream.clock - self.host)


class Stream:
    """A queue of work, in order."""

    def __init__(self, cuda: Cuda, priority: int = 0) -> None:
        self._cuda, self.priority = cuda, priority
        self.number = len(cuda.streams)
        self.clock: Clock = Counter()
        cuda.streams.append(self)

    def see(self, clock: Clock) -> None:
        """Order all later work of this stream after this clock."""
        self.clock.update(clock - self.clock)

    def wait_event(self, event: "Event") -> None:
        """Order all later work of this stream after the event."""
        self.see(event.clock)

    def wait_stream(self, other: "Stream") -> None:
        """Order all later work of this stream after the work queued on the other stream."""
        self.see(other.clock)

    def synchronize(self) -> None:
        """Wait for the work queued on this stream."""
        self._cuda.host.update(self.clock - self._cuda.host)


class Event:
    """A point in the work of a stream."""

    def __init__(self, cuda: Cuda, *, enable_timing: bool = False, blocking: bool = False) -> None:
        self._cuda, self._timing, self._blocking = cuda, enable_timing, blocking
        self.clock: Clock = Counter()

    def record(self) -> None:
        """Place the event after the work queued now."""
        self.clock = Counter(self._cuda.current.clock)

    def synchronize(self) -> None:
        """Wait for the event."""
        assert self._blocking, "a thread that waits would spin"
        assert self._cuda.capture is None, "operation not permitted when stream is capturing"
        self._cuda.waits += 1
        self._cuda.host.update(self.clock - self._cuda.host)

    def query(self) -> bool:
        """Return whether the event has happened."""
        return True

    def elapsed_time(self, other: "Event") -> float:
        """Return the milliseconds between two events."""
        assert self._timing
        assert other.query()
        return 1.0


class Graph:
    """A recorded sequence of operators that can be replayed."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.calls: list[Any] = []

    def replay(self) -> None:
        """Run the operators on the current content of their inputs."""
        self._cuda.replayed += 1
        for call, args, kwargs, result in self.calls:
            for old, new in zip(_tensors(result), _tensors(call(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Followed(TorchDispatchMode):  # type: ignore[misc]
    """A dispatch mode that passes every operator of a thread to the device."""

    def __init__(self, cuda: Cuda) -> None:
        super().__init__()
        self._cuda = cuda

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator as the device does."""
        return self._cuda.run(call, args, kwargs or {})


def install(patch: Any) -> Cuda:
    """Install this device in torch until the test ends.

    Threads that compute must call `follow`.

    Args:
        patch: pytest's monkeypatch.
    """
    cuda = Cuda()

    @contextmanager
    def stream(one: Stream) -> Iterator[None]:
        cuda.follow()
        before, cuda.current = cuda.current, one
        try:
            yield
        finally:
            cuda.current = before

    @contextmanager
    def graph(one: Graph, *, pool: Any, capture_error_mode: str) -> Iterator[None]:
        assert pool is not None
        assert capture_error_mode == "thread_local"
        cuda.capture = one
        try:
            yield
        finally:
            cuda.capture = None
        cuda.captured += 1

    torch_cuda = {
        "Event": lambda **settings: Event(cuda, **settings),
        "Stream": lambda priority=0: Stream(cuda, priority),
        "stream": stream,
        "set_stream": lambda one: setattr(cuda, "current", one),
        "current_stream": lambda: cuda.current,
        "synchronize": cuda.synchronize,
        "CUDAGraph": lambda: Graph(cuda),
        "graph": graph,
        "graph_pool_handle": object,
        "mem_get_info": lambda: (cuda.free, 80 * GIB),
        "memory_reserved": lambda: 0,
        "memory_allocated": lambda: 0,
        "max_memory_allocated": lambda: 0,
        "reset_peak_memory_stats": lambda: None,
        "is_bf16_supported": lambda **_: True,
        "get_device_capability": lambda: (9, 0),
    }
    for name, each in torch_cuda.items():
        patch.setattr(torch.cuda, name, each)
    patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: cuda.record(tensor, stream))  # noqa: PLW0108 - a bound method gets no tensor
    plain_cpu = torch.Tensor.cpu

    def cpu(tensor: torch.Tensor) -> torch.Tensor:
        cuda.current.synchronize()
        return plain_cpu(tensor)

    patch.setattr(torch.Tensor, "cpu", cpu)
    patch.setattr(diffusers.DiffusionPipeline, "to", lambda pipeline, _: pipeline)
    return cuda


def _storage(tensor: torch.Tensor) -> int:
    identity: int = tensor.untyped_storage()._cdata  # noqa: SLF001 - it has no other
    return identity


def _schema(call: Any) -> Any:
    return call._schema  # noqa: SLF001 - what an operator is to torch


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, torch.Tensor)]


def _written(call: Any, args: Any, kwargs: Any) -> Iterator[int]:
    """Return the storages that an operator writes to, according to its schema."""
    given = itertools.chain(args, kwargs.values())
    named = {argument.name: argument for argument in _schema(call).arguments}
    described = itertools.chain(_schema(call).arguments[: len(args)], (named[name] for name in kwargs))
    for value, argument in zip(given, described, strict=True):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from (_storage(each) for each in _tensors(value))
