# SPDX-License-Identifier: Apache-2.0
"""Network calls that are compiled in the background, so that no request waits for the compiler.

A call whose shapes are not compiled yet runs eagerly, and a background thread compiles it. The next call with these
shapes runs compiled. Three properties of torch 2.15's compiler shape this module:

- A thread that calls compiled code compiles when a guard fails. `torch._dynamo.run` never compiles: it runs code
  that was compiled before, else the eager code.
- Guards include the number of threads and the inference mode, so the compiling thread takes over both from the caller.
- Compiler settings are local to a thread, so limits are passed as arguments.
"""

import itertools
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch

from sd_runtime.engine import failures
from sd_runtime.engine.device import Device, set_threads

logger = logging.getLogger(__name__)

BACKEND = "inductor"
MOST_SHAPES = 128
"""The largest number of compiled combinations of shapes and LoRAs for one network.

The limit is needed because clients could request thousands of sizes.
"""
_WAITING = 64  # combinations in the compiler's queue; others try again with their next call
_TURN_SECONDS, _PAUSE_SECONDS = 0.002, 0.007  # see `Compiler`
_SWITCH_SECONDS = 5e-4

Call = Callable[..., Any]
Key = tuple[Hashable, int, Hashable]


class Compiler:
    """The thread that compiles, one combination at a time.

    Tracing a network takes seconds of Python, and the interpreter runs one thread at a time. A thread that launches a
    thousand short operations waits for its turn after each of them. Beside this thread the runner would take three
    times as long. So this thread pauses repeatedly while images are generated. The compilation then takes ten times as
    long, but no request waits for it.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._jobs: queue.PriorityQueue[tuple[bool, int, bool, Callable[[], None]]] = queue.PriorityQueue(
            _WAITING
        )
        self._numbers = itertools.count()
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="compiling", daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], None], *, ahead: bool = False, wait: bool = False) -> bool:
        """Add a job behind the waiting ones; return False if the queue is full.

        Args:
            job: compiles one combination.
            ahead: the job comes before jobs that no request needs yet.
            wait: wait for a free slot in the queue. The caller also waits for the result, so the thread does not pause.
        """
        try:
            self._jobs.put((not ahead, next(self._numbers), not wait, job), block=wait)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Stop the thread after its current compilation."""
        self._is_open = False
        with suppress(queue.Full):
            self._jobs.put_nowait((False, next(self._numbers), False, lambda: None))

    def _run(self) -> None:
        while self._is_open:
            _, _, beside, job = self._jobs.get()
            if not self._is_open:
                return
            usual = sys.getswitchinterval()
            sys.setswitchinterval(_SWITCH_SECONDS)
            if beside:
                sys.setprofile(self._pausing())  # Python calls it at each function call in this thread
            try:
                job()
            finally:
                sys.setprofile(None)
                sys.setswitchinterval(usual)

    def _pausing(self) -> Callable[[Any, str, Any], None]:
        """Return a profile function that pauses this thread after each turn while images are generated."""
        began = time.perf_counter()

        def pause(_: Any, __: str, ___: Any) -> None:
            nonlocal began
            if self._device.at_work and time.perf_counter() - began > _TURN_SECONDS:
                time.sleep(_PAUSE_SECONDS)
                began = time.perf_counter()

        return pause


class CompiledCall:
    """A network call that runs compiled as soon as its compilation is done.

    Attributes:
        on_call: called after each call, with whether the call ran compiled and how many combinations are compiled.
        example: the tensors of the first call; None before the first call.
        failure: the reason of the latest failed compilation; empty if none has failed.
    """

    def __init__(
        self,
        name: str,
        eager: Call,
        compiler: Compiler,
        *,
        device: Device,
        variant: Callable[[], Hashable] = lambda: None,
        build: Callable[[Any], Call] | None = None,
        may_compile: Callable[[Any], bool] = lambda _: True,
        options: dict[str, Any] | None = None,
        most: int = MOST_SHAPES,
    ) -> None:
        """Create the call; the constructor compiles nothing.

        Args:
            name: name of the network, for the log.
            eager: the uncompiled call; it takes tensors and dictionaries of tensors.
            compiler: the thread that compiles.
            device: the device that computes.
            variant: returns the current variant of the network, such as its active LoRAs.
            build: returns a call of a variant, with a state that no other code changes; default: `eager`.
            may_compile: whether a variant may be compiled.
            options: options of torch's compiler.
            most: the largest number of combinations to compile.
        """
        self.on_call: Callable[[bool, int], None] = lambda _, __: None
        self.example: Any = None
        self.failure = ""
        self._name = name
        self._eager = eager
        self._compiler = compiler
        self._device = device
        self._variant = variant
        self._build = build or (lambda _: eager)
        self._may_compile = may_compile
        self._options = options
        self._most = most
        self._traced: dict[Hashable, _Traced] = {}
        self._ready: dict[Key, _Traced] = {}
        self._wanted: dict[Key, threading.Event] = {}
        self._waits = False
        self._is_full = False

    def close(self) -> None:
        """Stop the compilations; compiled code remains usable."""
        self._compiler.close()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within this block each call waits for its compilation; the warm-up uses this before the first request."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def __call__(self, *inputs: Any, **settings: Any) -> Any:
        """Run the call, compiled if possible; the result is that of the eager call."""
        key = (self._variant(), torch.get_num_threads(), _shapes(inputs, settings))
        if self.example is None:
            self.example = inputs
        if key not in self._ready:
            done = self._have(key, inputs, settings, ahead=True)
            if self._waits and done is not None:
                done.wait()
        traced = self._ready.get(key)
        if traced is None:
            self.on_call(False, len(self._ready))
            return self._eager(*inputs, **settings)
        result, compiled = traced.run(inputs, settings)
        if not compiled:
            del self._ready[key]
            logger.warning(
                "compiled code of the %s no longer fits %s; these calls run uncompiled until the replica restarts",
                self._name,
                key,
            )
        self.on_call(compiled, len(self._ready))
        return result

    def compiling(self, *inputs: Any) -> bool:
        """Whether compiled code for a call with these inputs is still expected."""
        variant = self._variant()
        asked = self._wanted.get((variant, torch.get_num_threads(), _shapes(inputs, {})))
        if asked is not None:
            return not asked.is_set()
        return self._may_compile(variant) and len(self._wanted) < self._most

    def prepare(self, variant: Hashable, threads: int, *inputs: Any) -> None:
        """Queue the compilation of a combination that no request needs yet.

        Args:
            variant: the variant of the network.
            threads: the number of torch threads of the calling thread.
            inputs: inputs with the shapes to compile for.
        """
        self._have((variant, threads, _shapes(inputs, {})), inputs, {}, ahead=False)

    def pending(self) -> list[threading.Event]:
        """Return one event for each queued or compiled combination; the event is set once the compilation is over."""
        return list(self._wanted.values())

    def _have(
        self, key: Key, inputs: Any, settings: dict[str, Any], *, ahead: bool
    ) -> threading.Event | None:
        """Queue the compilation of a combination.

        Returns:
            An event that is set once the compilation is over; None if the combination is not queued now.
        """
        if key in self._wanted:
            return self._wanted[key]
        if not self._may_compile(key[0]):
            return None
        if len(self._wanted) >= self._most:
            if not self._is_full:
                self._is_full = True
                logger.warning(
                    "%d combinations of the %s were compiled; others run uncompiled", self._most, self._name
                )
            return None
        done, ready = threading.Event(), self._device.mark()
        job = partial(self._compile, key, inputs, settings, ready, done)
        if not self._compiler.put(job, ahead=ahead, wait=self._waits):
            return None
        self._wanted[key] = done
        return done

    def _compile(
        self, key: Key, inputs: Any, settings: dict[str, Any], ready: Any, done: threading.Event
    ) -> None:
        variant, threads, shapes = key
        began = time.monotonic()
        try:
            set_threads(threads)
            traced = self._traced.get(variant)
            if traced is None:
                traced = self._traced[variant] = _Traced(self._build(variant), self._options)
            tensors = [(tensor, ready) for tensor in _tensors(inputs)]
            with torch.inference_mode(), self._device.aside(tensors):
                traced.compile(inputs, settings)
            self._ready[key] = traced
            logger.info("compiled the %s for %s in %.1f s", self._name, shapes, time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - calls then run uncompiled
            self.failure = (
                f"torch: the {self._name} cannot be compiled and runs uncompiled: {failures.one_line(error)}"
            )
            logger.error("%s", self.failure)  # noqa: TRY400
        finally:
            done.set()


class _Traced:
    """One call and its compiled code."""

    def __init__(self, call: Call, options: dict[str, Any] | None) -> None:
        self._eager_runs = threading.local()

        def traced(*inputs: Any, **settings: Any) -> Any:
            if not torch.compiler.is_compiling():  # compiled code does not contain this branch
                self._eager_runs.count = self._count() + 1
            return call(*inputs, **settings)

        # Torch keeps compiled code per code object, and all functions created here would share one.
        traced.__code__ = traced.__code__.replace(co_name=f"traced_{id(self)}")
        self._compiled = torch.compile(
            traced, backend=BACKEND, dynamic=False, recompile_limit=MOST_SHAPES, options=options
        )
        self._run = torch._dynamo.run(self._compiled)  # noqa: SLF001 - there is no public name

    def compile(self, inputs: Any, settings: dict[str, Any]) -> None:
        """Compile for these inputs, and run the compiled code once."""
        self._compiled(*inputs, **settings)

    def run(self, inputs: Any, settings: dict[str, Any]) -> tuple[Any, bool]:
        """Return the result, and whether compiled code computed it."""
        before = self._count()
        result = self._run(*inputs, **settings)
        return result, self._count() == before

    def _count(self) -> int:
        return getattr(self._eager_runs, "count", 0)


def _shapes(inputs: Any, settings: dict[str, Any]) -> Hashable:
    found = tuple(
        tuple((name, tuple(tensor.shape)) for name, tensor in each.items())
        if isinstance(each, dict)
        else tuple(each.shape)
        for each in inputs
    )
    return (*found, *sorted(settings.items()))


def _tensors(inputs: Any) -> list[torch.Tensor]:
    return [tensor for each in inputs for tensor in (each.values() if isinstance(each, dict) else (each,))]
